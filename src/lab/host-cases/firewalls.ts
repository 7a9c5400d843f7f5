/**
 * Rules of others on the machine itself: a strict output chain, and a transparent proxy.
 */

import type { Family } from '../topology.js';
import { GIVE_UP_MS } from '../twins/lab.js';
import type { Machine } from '../twins/machine.js';
import type { HostCase } from '../twins/stage.js';
import { FAR, FULL } from '../twins/topology.js';
import { pause, until } from '../wait.js';
import { FLOW, LEGACY_DIES, LEGACY_STAYS } from './talks.js';

/* As ufw with `default deny outgoing`: the ports of the case are allowed, by their destination. */
const STRICT = `table inet strict {
  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state invalid drop
    ct state established,related accept
    meta l4proto { icmp, ipv6-icmp } accept
  }
  chain output {
    type filter hook output priority filter; policy drop;
    oif lo accept
    ct state invalid drop
    ct state established,related accept
    meta l4proto { icmp, ipv6-icmp } accept
    tcp dport 5001-5999 tcp flags & (fin | syn | rst | ack) == syn ct state new accept
  }
}
`;

export const firewallOut: HostCase = {
  name: 'host-firewall-out',
  summary: 'what is neither allowed nor established does not leave, nor come in; the machine moves',
  software: 'nftables: policy drop in both directions, as of ufw',
  twins: { addresses: 'static' },
  talks: [FLOW, LEGACY_DIES],
  prepare: (machine) => machine.nft(STRICT),
  happen: (machine) => machine.renumber('B'),
};

/** A stranger's address that the proxy speaks in the name of. */
const stranger = ({ number }: Machine, family: Family): string =>
  family === 4 ? `198.18.0.${number}` : `2001:db8:d::${number}`;

const proxyPort = ({ number }: Machine): number => 5_990 + number;

/** $1: what it speaks as; $2, $3: where it connects to for what comes in on localhost. */
const PROXY = `
import socket, sys, threading
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
level, transparent = (41, 75) if family == socket.AF_INET6 else (0, 19)
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    for each in (a, b):
        try: each.shutdown(socket.SHUT_RDWR)
        except OSError: pass
local = '::1' if family == socket.AF_INET6 else '127.0.0.1'
server = socket.create_server((local, int(sys.argv[3])), family=family)
while True:
    near, _ = server.accept()
    far = socket.socket(family)
    far.setsockopt(level, transparent, 1)
    far.bind((sys.argv[1], 0))
    far.connect((sys.argv[2], int(sys.argv[3])))
    for ends in ((near, far), (far, near)):
        threading.Thread(target=pump, args=ends, daemon=True).start()
`;

const LOCALHOST: Record<Family, string> = { 4: '127.0.0.1', 6: '::1' };

async function startProxy(machine: Machine, family: Family): Promise<void> {
  const own = stranger(machine, family);
  const way = `${own}/${FULL[family]} via ${machine.address(family)}`;
  machine.lab.run('router', ['ip', 'route', 'add', ...way.split(' ')]);
  machine.run('ip', `-${family}`, 'rule', 'add', 'fwmark', '1', 'lookup', '100');
  machine.run('ip', `-${family}`, 'route', 'add', 'local', 'default', 'dev', 'lo', 'table', '100');
  machine.nft(`table inet proxy {
  chain prerouting {
    type filter hook prerouting priority mangle;
    ${family === 4 ? 'ip' : 'ip6'} daddr ${own} meta mark set 1
  }
}
`);
  machine.write('/run/proxy.py', PROXY);
  const port = String(proxyPort(machine));
  machine.start('proxy', 'python3', '/run/proxy.py', own, FAR.plain[family], port);
  const listens = () => machine.run('ss', '-Hltn', `sport = :${port}`) !== '';
  await until(`the proxy of ${machine.name}`, listens);
}

export const tproxy: HostCase = {
  name: 'host-tproxy',
  summary: "a transparent proxy speaks in strangers' names for longer than give_up",
  software: 'nftables and policy routing as of TPROXY, sockets with IP_TRANSPARENT',
  twins: { addresses: 'static' },
  talks: [
    LEGACY_STAYS,
    {
      ...{ name: 'plain TCP by the proxy', far: 'plain', without: 'goes on', with: 'goes on' },
      ...{ to: (_, family) => LOCALHOST[family], port: proxyPort, early: true },
    },
  ],
  prepare: startProxy,
  happen: () => pause(GIVE_UP_MS + 1_500),
};
