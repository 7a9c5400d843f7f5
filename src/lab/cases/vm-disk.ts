/**
 * The case in which the guest's disk goes with it: it writes to an ext4 file system all the
 * time, and finds every byte and a sound file system at the destination.
 */

import type { VmCase, VmStage } from '../vm/stage.js';
import { until } from '../wait.js';

/* A file and its checksum at a time, forced to the disk; 100 files, over and over, so that blocks
 * are rewritten while they are being copied. A file counts when its checksum is there.
 */
const WRITER = [
  'mkfs.ext4 -q /dev/vda && mkdir -p /mnt && mount /dev/vda /mnt && mkdir /mnt/d /mnt/s',
  '(i=0; while [ ! -e /tmp/stop ]; do f=$((i % 100)); rm -f /mnt/s/$f',
  'dd if=/dev/urandom of=/mnt/d/$f bs=64k count=4 conv=fsync 2>/dev/null',
  'sha256sum /mnt/d/$f > /tmp/sum && cp /tmp/sum /mnt/s/$f && sync',
  'i=$((i+1)); echo $i > /tmp/written',
  'done; touch /tmp/stopped) > /tmp/writer.log 2>&1 < /dev/null &',
].join('; ');

const CHECK = 'cat /mnt/s/* | sha256sum -c | grep -vc OK; cat /mnt/s/* | wc -l';

export const vmDisk: VmCase = {
  name: 'vm-disk',
  summary: 'the guest writes to its disk while that is copied, and finds every byte there',
  vm: { disk: 'private' },
  async play(stage) {
    const programs = await stage.programs();
    const [{ session }] = programs;
    await session.run(WRITER);
    const written = async (): Promise<number> =>
      Number((await session.run('cat /tmp/written 2>/dev/null || echo 0'))[0]);
    await until('the guest to write', async () => (await written()) > 5, 30_000);
    const before = await written();
    await stage.migrate('porthos', ['--storage', 'copy']);
    await stage.checkPlace('porthos');
    await stage.checkGoOn(programs, 'at porthos');
    const arrived = await written();
    stage.check('it wrote during the copy', arrived > before, `${before} files, then ${arrived}`);
    const onwards = async () => (await written()) > arrived + 5;
    await until('the guest to write on at porthos', onwards, 30_000);
    await checkDisk(stage, session);
    await stage.checkNothingLeft('vm', 'porthos');
    await stage.finish(programs);
  },
};

type Runs = { run(command: string, boundMs?: number): Promise<string[]> };

async function checkDisk(stage: VmStage, session: Runs): Promise<void> {
  await session.run('touch /tmp/stop');
  const stopped = async () => (await session.run('ls /tmp/stopped 2>/dev/null')).length === 1;
  await until('the writer to stop', stopped, 30_000);
  // Not what the page cache remembers, but what is on the disk.
  await session.run('umount /mnt && echo 3 > /proc/sys/vm/drop_caches', 30_000);
  const fsck = await session.run('e2fsck -fn /dev/vda && echo sound', 60_000);
  stage.check('the file system is sound', fsck.at(-1) === 'sound', fsck.join('; '));
  await session.run('mount -o ro /dev/vda /mnt');
  const [wrong, files] = (await session.run(CHECK, 60_000)).map(Number);
  const ok = wrong === 0 && (files ?? 0) > 5;
  stage.check('every file has its checksum', ok, `${wrong} of ${files} wrong`);
}
