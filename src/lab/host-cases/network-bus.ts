/**
 * A D-Bus of a machine's own, for the network managers.
 */
import type { Machine } from '../twins/machine.js';
import { until } from '../wait.js';

/** Packages make these users when they are installed; here they may not be. */
const USERS = ['messagebus', 'systemd-network'];

export async function startBus(machine: Machine): Promise<void> {
  for (const [i, user] of USERS.entries()) {
    if (machine.try('id', user)) continue;
    const line = `${user}:x:${990 + i}:${990 + i}::/:/usr/sbin/nologin`;
    const group = `${user}:x:${990 + i}:`;
    machine.run('sh', '-ec', `echo '${line}' >> /etc/passwd; echo '${group}' >> /etc/group`);
  }
  machine.run('mkdir', '-p', '/run/dbus', '/run/udev');
  machine.start('dbus', 'dbus-daemon', '--system', '--nofork', '--nopidfile');
  const answers = () => machine.try('test', '-S', '/run/dbus/system_bus_socket');
  await until(`the bus of ${machine.name}`, answers);
}
