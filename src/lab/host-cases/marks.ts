/**
 * Packet marks that another program sets: CONNMARK as firewalld, Docker and kube-proxy restore
 * it, which overwrites a mark, and a bit of one's own in it, as VPN clients and policy routing do.
 */
import type { HostCase } from '../twins/stage.js';
import { FLOW, LEGACY_DIES } from './talks.js';

const MARKS = `table inet others {
  chain prerouting {
    type filter hook prerouting priority mangle;
    ct state established,related meta mark set ct mark and 0x00ff0000
    meta mark set meta mark or 0x10000
  }
  chain output {
    type route hook output priority mangle;
    ct mark set meta mark or 0x20000
  }
}
`;

export const marks: HostCase = {
  name: 'host-marks',
  summary: 'nftables rules restore the mark of a connection and set a bit; the machine moves',
  software: 'nftables: CONNMARK --restore-mark, meta mark set ct mark',
  twins: { addresses: 'static' },
  talks: [FLOW, LEGACY_DIES],
  prepare: (machine) => machine.nft(MARKS),
  happen: (machine) => machine.renumber('B'),
};
