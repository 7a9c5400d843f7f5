/* What is wanted: the configuration first, then what was asked for, which the next daemon knows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Wants } from '../../../src/daemon/host/wants.js';
import { temporaryDirectory } from '../temporary.js';

const CONFIG = { interfaces: ['eth0'], gateways: ['up*'], taps: ['vnet*'] };
const texts = (wants: Wants): string[] => wants.all().map(({ pattern, as }) => `${pattern} ${as}`);
const CONFIGURED = ['eth0 host', 'up* gateway', 'vnet* tap'];

test('asked for and refused, and found by the next daemon', (t) => {
  const config = { ...CONFIG, runDir: temporaryDirectory(t) };
  const wants = new Wants(config, []);
  wants.ask('eth1', 'host');
  wants.ask('eth1', 'gateway');
  wants.refuse('eth0');
  assert.deepEqual(texts(wants), [...CONFIGURED, 'eth1 gateway', 'eth0 none']);
  assert.deepEqual(texts(new Wants(config, [])), texts(wants));
  wants.refuse('*');
  assert.deepEqual(texts(wants), [...CONFIGURED, '* none']);
  wants.ask('eth0', 'host');
  assert.deepEqual(texts(wants), [...CONFIGURED, '* none', 'eth0 host']);
});

test('what nothing else names is only forgotten', (t) => {
  const wants = new Wants(
    { interfaces: ['eth0'], gateways: [], taps: [], runDir: temporaryDirectory(t) },
    [],
  );
  wants.ask('eth1', 'host');
  wants.refuse('eth1');
  wants.ask('vnet0', 'tap');
  wants.forget('vnet0');
  wants.forget('vnet7');
  assert.deepEqual(texts(wants), ['eth0 host']);
});

test('what a version that noted nothing has attached is wanted', (t) => {
  const found = [
    { interface: 'eth0', placement: 'host' },
    { interface: 'eth1', placement: 'gateway' },
    { interface: 'eth2', placement: undefined },
  ] as const;
  const wants = new Wants({ ...CONFIG, runDir: temporaryDirectory(t) }, found);
  assert.deepEqual(texts(wants), [...CONFIGURED, 'eth1 gateway']);
});
