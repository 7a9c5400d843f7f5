/* Loaded into a process before all else (node --import): from then on it lives in a kernel that has
 * no IPv6.  socket(AF_INET6, ...) fails with EAFNOSUPPORT, as with ipv6.disable=1.  seccomp(2).
 */
import koffi from 'koffi';

const PR_SET_SECCOMP = 22;
const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_MODE_FILTER = 2;

const SYS_SOCKET: Partial<Record<NodeJS.Architecture, number>> = { x64: 41, arm64: 198 };
const AF_INET6 = 10;
const EAFNOSUPPORT = 97;

/* struct seccomp_data: nr at 0, args[0] at 16. */
const [LOAD, EQUALS, RETURN] = [0x20, 0x15, 0x06];
const ALLOW = 0x7fff0000;
const FAIL = 0x00050000 | EAFNOSUPPORT;
const PROGRAM = [
  [LOAD, 0, 0, 0],
  [EQUALS, 0, 3, SYS_SOCKET[process.arch] ?? 0],
  [LOAD, 0, 0, 16],
  [EQUALS, 0, 1, AF_INET6],
  [RETURN, 0, 0, FAIL],
  [RETURN, 0, 0, ALLOW],
] as const;

const instructions = Buffer.alloc(8 * PROGRAM.length);
for (const [i, [code, ifTrue, ifFalse, k]] of PROGRAM.entries()) {
  instructions.writeUInt16LE(code, 8 * i);
  instructions.writeUInt8(ifTrue, 8 * i + 2);
  instructions.writeUInt8(ifFalse, 8 * i + 3);
  instructions.writeUInt32LE(k, 8 * i + 4);
}
const program = Buffer.alloc(16);
program.writeUInt16LE(PROGRAM.length, 0);
program.writeBigUInt64LE(koffi.address(instructions), 8);

const prctl = koffi
  .load('libc.so.6')
  .func('int prctl(int option, unsigned long a, void *b, unsigned long c, unsigned long d)');
const refused =
  prctl(PR_SET_NO_NEW_PRIVS, 1, null, 0, 0) ||
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0);
if (refused !== 0) throw new Error('this process cannot be kept from IPv6');
