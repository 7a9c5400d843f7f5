/**
 * The VMs of the lab as QEMU command lines. Always TCG: a guest must run where there is no KVM,
 * and QEMU must not choose by itself.
 */
import type { GuestImage } from './image.js';

export interface MachineOptions {
  name: VmName;
  /** a raw or qcow2 image */
  disk?: string | undefined;
  /** the guest has its own tiflow */
  tiflow: boolean;
  /** the initramfs of this lab (initrd.ts) */
  initrd: string;
}

export const VM_NAMES = ['vm', 'vm2'] as const;
export type VmName = (typeof VM_NAMES)[number];

export const MACS: Record<VmName, string> = {
  vm: '02:00:00:00:00:0a',
  vm2: '02:00:00:00:00:0b',
};
export const TAPS: Record<VmName, string> = { vm: 'vnet0', vm2: 'vnet1' };

/** On its hypervisor. */
export const qmpPath = (name: string): string => `/run/vm/${name}.qmp`;
export const consolePath = (name: string): string => `/run/vm/${name}.console`;

/** Node and this build are unpacked into memory, beside the archive that they came in. */
const MEMORY_MB = { plain: 192, tiflow: 448 };

/* /dev/ttyS0 is the log of the guest; a kernel that panics ends QEMU; ramfs, since a tmpfs would
 * hold half of the memory only.
 */
const COMMAND_LINE = 'console=ttyS0 quiet panic=-1 rootfstype=ramfs';

export function qemu(image: GuestImage, o: MachineOptions): string[] {
  const { name } = o;
  return [
    ...['qemu-system-x86_64', '-accel', 'tcg', '-name', name],
    ...['-m', String(o.tiflow ? MEMORY_MB.tiflow : MEMORY_MB.plain)],
    ...['-nodefaults', '-display', 'none', '-no-reboot'],
    ...['-kernel', image.kernel, '-initrd', o.initrd, '-append', COMMAND_LINE],
    ...['-qmp', `unix:${qmpPath(name)},server=on,wait=off`],
    ...['-chardev', `file,id=console,path=${consolePath(name)},append=on`],
    ...['-serial', 'chardev:console'],
    ...['-netdev', `tap,id=net0,ifname=${TAPS[name]},script=no,downscript=no`],
    ...['-device', `virtio-net-pci,netdev=net0,mac=${MACS[name]}`],
    ...(o.disk ? ['-drive', `file=${o.disk},format=raw,if=virtio,id=disk0`] : []),
  ];
}
