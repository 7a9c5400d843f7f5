/* IPv6 settings of an interface, as sysctl(8) shows them, in the process's network namespace. */
import { readFileSync } from 'node:fs';

/** The value of net.ipv6.conf.INTERFACE.SETTING; undefined: no IPv6, interface or setting. */
export function ipv6Setting(interfaceName: string, setting: string): number | undefined {
  try {
    return Number(readFileSync(`/proc/sys/net/ipv6/conf/${interfaceName}/${setting}`, 'utf8'));
  } catch {
    return undefined;
  }
}
