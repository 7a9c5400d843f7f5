/**
 * docs/HOSTS.md: the hosts' cases as a page. Pure; all of it comes from the cases and the silences
 * that were met, so that a test can tell whether the page is still what the cases say.
 */
import type { HostCase, Talk } from '../twins/stage.js';

const HEAD = `# Other software on the host

What becomes of connections on a machine where other software changes links, addresses, routes, rules, marks and qdiscs: real
network managers, DHCP clients, routing daemons and nftables, in namespaces. Each case has two such machines to which the same
happens: one with tiflow, and its twin without, which is the control. What was fine without is fine with: a test plays them all.
\`make hosts\` plays them over IPv4 and IPv6 and writes this page; do not edit it. One case: \`tiflow lab run host-vip --json\`, over
IPv6 with \`--ipv6\`.

| cell | meaning |
|---|---|
| goes on | every byte of it; where its peer has tiflow, as a TI flow. (n ms): the longest silence that the programs met, all that happens included |
| reset | a program was told, within \`give_up\` |
| dead | nobody is told anything, and nothing arrives any more |

After each of them a new connection of the host works, and is protected, unless its user has disconnected it. The network managers
are Debian's packages, unpacked into \`/var/cache/tiflow-lab\` and not installed.
`;

const TABLE = `| case | scenario | software | without tiflow | with tiflow |
|---|---|---|---|---|
`;

/** The longest silence of a case's TI flows, ms, by the name of the case; of both families. */
export type Silences = ReadonlyMap<string, number>;

export function hostsDocument(cases: readonly HostCase[], silences: Silences): string {
  const rows = cases.map((each) => {
    const families = each.families?.map((family) => `IPv${family}`).join(', ');
    const summary = families === undefined ? each.summary : `${each.summary} (${families})`;
    const cells = [
      `\`${each.name}\``,
      summary,
      each.software,
      outcomes(each.talks, (talk) => talk.without),
      outcomes(each.talks, (talk) => talk.with, silences.get(each.name)),
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return `${HEAD}\n${TABLE}${rows.join('\n')}\n`;
}

function outcomes(talks: readonly Talk[], of: (talk: Talk) => string, silenceMs?: number): string {
  if (talks.length === 0) return 'as it should be';
  const text = (talk: Talk): string => {
    const isFlow = talk.far === 'peer' && of(talk) === 'goes on';
    const silence = isFlow && silenceMs !== undefined ? ` (${silenceMs} ms)` : '';
    return `${talk.name}: ${of(talk)}${silence}`;
  };
  return talks.map(text).join('; ');
}

/** What must not change from run to run. */
export const withoutSilences = (page: string): string => page.replaceAll(/ \(\d+ ms\)/g, '');
