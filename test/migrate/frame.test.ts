/* The channel's frames: whole, however the network cuts them; and what is none of ours. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  DATA_BYTES_MAX,
  encodeData,
  encodeEnd,
  encodeMessage,
  encodeOpen,
  type Frame,
  FrameDecoder,
  incompatibility,
  ourHello,
} from '../../src/migrate/frame.js';

type Sent =
  | { kind: 'message'; message: Record<string, unknown> }
  | { kind: 'data'; stream: string; bytes: Buffer }
  | { kind: 'open'; stream: string }
  | { kind: 'end'; stream: string };

const streamName = fc.constantFrom('ram-1', 'nbd-1', 'nbd-2');
const sent: fc.Arbitrary<Sent> = fc.oneof(
  fc.record({
    kind: fc.constant('message' as const),
    // Also line ends, quotes, and whatever else JSON has to escape.
    message: fc.record({ id: fc.nat(), request: fc.string(), body: fc.jsonValue() }),
  }),
  fc.record({
    kind: fc.constant('data' as const),
    stream: streamName,
    bytes: fc.uint8Array({ minLength: 1, maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  }),
  fc.record({ kind: fc.constant('open' as const), stream: streamName }),
  fc.record({ kind: fc.constant('end' as const), stream: streamName }),
);

function encode(frame: Sent): Buffer {
  if (frame.kind === 'message') return encodeMessage(frame.message);
  if (frame.kind === 'open') return encodeOpen(frame.stream);
  return frame.kind === 'end' ? encodeEnd(frame.stream) : encodeData(frame.stream, frame.bytes);
}

/* A split may cut data in several frames: they are joined again before they are compared. */
function joined(frames: Frame[]): unknown[] {
  const out: Frame[] = [];
  for (const frame of frames) {
    const last = out.at(-1);
    if (frame.kind === 'data' && last?.kind === 'data' && last.stream === frame.stream) {
      last.bytes = Buffer.concat([last.bytes, frame.bytes]);
    } else out.push({ ...frame });
  }
  return JSON.parse(JSON.stringify(out));
}

test('any frames, split anywhere, arrive as they were sent', () => {
  fc.assert(
    fc.property(fc.array(sent), fc.array(fc.nat(50)), (frames, cuts) => {
      const wire = Buffer.concat(frames.map(encode));
      const decoder = new FrameDecoder();
      const got: Frame[] = [];
      let at = 0;
      for (const cut of [...cuts, wire.length]) {
        got.push(...decoder.push(wire.subarray(at, at + cut)));
        at += cut;
      }
      assert.deepEqual(joined(got), joined(frames));
      assert.ok(decoder.isIdle);
    }),
  );
});

test('an end within a frame is a cut', () => {
  const wire = Buffer.concat([encodeMessage({ id: 1 }), encodeData('ram-1', Buffer.from('abc'))]);
  const whole = encodeMessage({ id: 1 }).length;
  for (let length = 0; length <= wire.length; length += 1) {
    const decoder = new FrameDecoder();
    assert.ok([...decoder.push(wire.subarray(0, length))].length <= 2);
    assert.equal(decoder.isIdle, [0, whole, wire.length].includes(length), `after ${length}`);
  }
});

test('much data goes in frames of a bounded size', () => {
  const bytes = Buffer.alloc(2 * DATA_BYTES_MAX + 1, 7);
  const sizes = [...new FrameDecoder().push(encodeData('ram-1', bytes))].map((frame) =>
    frame.kind === 'data' ? frame.bytes.length : 0,
  );
  assert.deepEqual(sizes, [DATA_BYTES_MAX, DATA_BYTES_MAX, 1]);
});

test('what is no frame', () => {
  const rows: [string, RegExp][] = [
    ['Welcome to porthos!\n', /no JSON object: "Welcome to porthos!"/],
    ['[]\n', /no JSON object/],
    ['null\n', /no JSON object/],
    ['\n', /no JSON object/],
    [`{"stream":"ram-1","bytes":${DATA_BYTES_MAX + 1}}\n`, /65537 bytes/],
    ['{"stream":"ram-1","bytes":0}\n', /0 bytes/],
    ['{"stream":"ram-1","bytes":-1}\n', /-1 bytes/],
    ['{"stream":"ram-1","bytes":1.5}\n', /1.5 bytes/],
    ['{"stream":"ram-1"}\n', /undefined bytes/],
  ];
  for (const [text, error] of rows) {
    assert.throws(() => [...new FrameDecoder().push(Buffer.from(text))], error, text);
  }
});

test('hello: versions that overlap', () => {
  assert.equal(incompatibility({ ...ourHello() }), undefined);
  assert.equal(incompatibility({ ...ourHello(), version: 9, lowest: 1 }), undefined);
  assert.match(incompatibility({ ...ourHello(), version: 9, lowest: 3 }) ?? '', /versions 3 to 9/);
  assert.match(incompatibility({ ...ourHello(), version: 0, lowest: 0 }) ?? '', /versions 0 to 0/);
  assert.match(incompatibility({ hello: 'ssh' }) ?? '', /no hello/);
});
