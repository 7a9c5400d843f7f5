/* Sends back whatever it receives, on the port given, both families. */
import { createServer } from 'node:net';

const server = createServer((socket) => {
  socket.on('error', () => socket.destroy());
  socket.pipe(socket);
});
server.listen(Number(process.argv[2]), '::', () => process.stdout.write('ready\n'));
