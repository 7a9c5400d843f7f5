/* QEMU's option syntax: "tap,id=net0,ifname=vnet0" or JSON; a comma in a value is doubled.
 * qemu(1), and util/keyval.c, util/qemu-option.c of QEMU.
 */

export interface QemuOption {
  /** The first word without a key: a driver ("tap"), a backend ("unix:/run/vm.qmp"), a name. */
  head: string | undefined;
  /** In the order given; a key may come twice.  A flag without "=" is "on", as QEMU has it. */
  keys: [key: string, value: string][];
}

/** Never fails: QEMU has accepted the text already. */
export function parseOption(text: string): QemuOption {
  const keys: [string, string][] = [];
  let head: string | undefined;
  for (const [at, part] of splitCommas(text).entries()) {
    const equals = part.indexOf('=');
    if (equals > 0 && isKey(part.slice(0, equals))) {
      keys.push([part.slice(0, equals), part.slice(equals + 1)]);
    } else if (at === 0) head = part;
    else keys.push([part, 'on']);
  }
  return { head, keys };
}

export function formatOption({ head, keys }: QemuOption): string {
  const parts = keys.map(([key, value]) => `${key}=${doubled(value)}`);
  return [...(head === undefined ? [] : [doubled(head)]), ...parts].join(',');
}

/** The last one counts. */
export function optionValue(option: QemuOption, key: string): string | undefined {
  return option.keys.findLast(([name]) => name === key)?.[1];
}

/* "unix:/a=b" is a backend, no key. */
function isKey(text: string): boolean {
  return /^[A-Za-z_][\w.-]*$/.test(text);
}

/* A comma ends a part unless another one follows: the two are one comma of the value. */
function splitCommas(text: string): string[] {
  const parts = [''];
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charAt(at);
    if (char === ',' && text.charAt(at + 1) !== ',') parts.push('');
    else {
      parts[parts.length - 1] += char;
      if (char === ',') at += 1;
    }
  }
  return parts;
}

function doubled(text: string): string {
  return text.replaceAll(',', ',,');
}
