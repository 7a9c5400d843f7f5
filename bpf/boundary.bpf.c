// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The isolation boundary: two tc programs on one interface, or two on the tap of a VM, and one
 * through which the daemon changes a flow.  A packet meets: parse, look up, learn or rewrite, count.
 *
 *              flows[kernel tuple]                      flows[wires[wire tuple].kernel]
 *   kernel ──► boundary_egress ──► wire        wire ──► boundary_ingress ──► kernel
 *   hosts ───► gateway_egress ──► wire      wire ──► gateway_ingress ──► hosts
 *   guest ───► tap_ingress ──► bridge          bridge ► tap_egress ──► guest
 *
 * What is not a TI flow's passes untouched.  What is one and cannot be translated is dropped under
 * a named reason.  The daemon is never on the path: it hears of synchronization packets through
 * the ring buffer, and its death stops nothing but further moves.
 */
#include <linux/if_packet.h>

#include "embryo.h"
#include "neighbour.h"
#include "place.h"
#include "rewrite.h"
#include "setup.h"
#include "track.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define ENOENT 2
#define EINVAL 22
#define ENOSPC 28
#define ESTALE 116

/* Keepalives and window probes are one below SND.UNA (RFC 9293, section 3.8.4), so that much is
 * allowed to an empty segment.
 */
static __always_inline bool is_below_base(const struct packet *p, const struct flow *f, seq base)
{
	__s32 above = seq_diff(bpf_ntohl(p->tcp.seq), base);

	if (!base_counts(f, base))
		return false;
	return above < -1 || (above == -1 && p->payload > 1);
}

/* A stateful firewall on the new path knows no window of the peer but that of its SYN/ACK, 65535 at
 * most.  Behind a segment above it Linux' conntrack finds the peer's ACKs too old, since they lie
 * that far below, never learns its true window, and drops everything from then on: the mover's
 * retransmissions as well.  So nothing above it until the peer has been heard.
 */
static __always_inline bool is_above_window(const struct packet *p, const struct flow *f,
					    const struct mapping *m)
{
	return f->flags & FLOW_UNPROVEN && seq_diff(packet_end(p), m->snd_base) > 65535;
}

static __always_inline void count_rewrite(const struct rewrite *r)
{
	if (r->clamped)
		count(COUNT_ACK_CLAMPED);
	if (r->blocks_dropped)
		count(COUNT_SACK_BLOCK_DROPPED);
}

/* A peer has moved away from where the guest still sends its frames. */
static __always_inline int tap_redirect(struct __sk_buff *skb, const struct packet *p)
{
	struct place *place = place_of(p->tuple.tap);
	int failed = place ? place_next_hop(skb, place, p->ipv6) : 0;

	/* Not known at home: the guest's own choice may do. */
	return failed == DROP_REWRITE ? drop(failed) : PASS;
}

/* A legacy connection of before the move: its peer knows nothing of this place, and would answer
 * with a reset that names another connection.  The daemon tells both ends.
 */
static __always_inline int tap_legacy_out(struct __sk_buff *skb, const struct packet *p)
{
	struct place *place = place_of(p->tuple.tap);
	struct plain *plain_since;

	if (!place || !place->since)
		return PASS;
	plain_since = bpf_map_lookup_elem(&plain, &p->tuple);
	if (!plain_since || plain_since->since > place->since)
		return PASS;
	event_stranded(skb, p);
	return drop(DROP_STRANDED);
}

/* Where the guest sends this flow's frames: the daemon sends its own there. */
static __always_inline void tap_note_next_hop(struct __sk_buff *skb, struct flow *f)
{
	__u8 mac[ETH_ALEN];

	if (!bpf_skb_load_bytes(skb, 0, mac, sizeof(mac)))
		__builtin_memcpy(f->next_hop, mac, sizeof(mac));
}

/* A packet that was sent to another interface of ours is not sent there once more. */
#define ASTRAY 0x5449

/* Its own TCP has sent again that often: the way that it is kept on does not work any more. */
#define ASTRAY_RESENT 2

/* By which interface a packet has to leave.  A flow that has moved leaves by that of its new address.
 * Any other whose packets leave by where its peer's come in is kept there when its kernel's route
 * turns elsewhere, for its address belongs there, and another network would drop it: until the daemon
 * has moved it, or lets it go, or nothing comes back.  Where a path is asymmetric, the kernel decides.
 * So it does for IPv6: given a source, it does not look for a route by one interface (ip6_route_output_flags:
 * strict only for any source), and bpf_redirect_neigh would drop what has a better one by another.
 */
static __always_inline __u32 way_out(struct __sk_buff *skb, const struct packet *p,
				     struct flow *f, const struct mapping *m)
{
	__u32 way = m ? m->redirect >> 1 : 0;

	if (p->gateway || p->tuple.tap || skb->tc_index == ASTRAY)
		return skb->ifindex;
	if (!way)
		way = f->outside;
	if (way == f->outside && way == skb->ifindex)
		flow_flag(f, FLOW_BOTH_WAYS);
	if (p->ipv6)
		return skb->ifindex;
	if (m && m->redirect >> 1)
		return way;
	if (!(f->flags & FLOW_BOTH_WAYS) || skb->vlan_present ||
	    (flow_is_unanswered(f) && f->resent >= ASTRAY_RESENT))
		return skb->ifindex;
	return way;
}

static __always_inline int leave_by(struct __sk_buff *skb, __u32 way)
{
	skb->tc_index = ASTRAY;
	return bpf_redirect_neigh(way, 0, 0, 0);
}

/* By which way the network brings it. */
static __always_inline void note_way_in(const struct __sk_buff *skb, struct flow *f)
{
	if (f->outside == skb->ifindex)
		return;
	f->outside = skb->ifindex;
	if (f->flags & FLOW_BOTH_WAYS)
		__sync_fetch_and_and(&f->flags, ~FLOW_BOTH_WAYS);
}

static __always_inline int mapped_out(struct __sk_buff *skb, const struct packet *p,
				      struct flow *f, const struct mapping *m, __u32 way)
{
	struct rewrite r = {
		.tuple = &m->wire,
		.seq_delta = m->snd_delta,
		.ack_delta = m->rcv_delta,
		.ack_limit = f->rcv_max,
		.sack_from = f->rcv_before,
		.limited = 1,
	};
	struct options o = {};
	__u32 redirect = m->redirect & 1;
	int failed;

	if (p->fragment)
		return drop(DROP_FRAGMENT);
	if (is_below_base(p, f, m->snd_base))
		return drop(DROP_BELOW_BASE);
	if (is_above_window(p, f, m))
		return swallow(DROP_ABOVE_WINDOW);
	if (!options_are_usual(skb, p))
		option_scan(skb, p, &o);
	if (o.reason == LEGACY_MALFORMED)
		return drop(DROP_MALFORMED);
	failed = rewrite_packet(skb, p, &o, &r, OUT);
	if (failed)
		return drop(failed);
	count_rewrite(&r);
	if (p->tuple.tap)
		return redirect ? tap_redirect(skb, p) : PASS;
	if (way != skb->ifindex)
		return leave_by(skb, way);
	return redirect ? bpf_redirect_neigh(skb->ifindex, 0, 0, 0) : PASS;
}

static __always_inline int mapped_in(struct __sk_buff *skb, const struct packet *p,
				     const struct tuple *kernel, const struct options *o)
{
	struct flow *f = bpf_map_lookup_elem(&flows, kernel);
	struct mapping *m = f ? flow_mapping(f) : 0;
	struct rewrite r = { .tuple = kernel };
	seq in_seq, in_ack;
	int failed;

	if (!m)
		return drop(DROP_REWRITE);
	if (!tuple_equal(&m->wire, &p->tuple))
		return drop(DROP_OLD_PATH);
	if (p->fragment)
		return drop(DROP_FRAGMENT);
	r.seq_delta = -m->rcv_delta;
	r.ack_delta = -m->snd_delta;
	in_seq = bpf_ntohl(p->tcp.seq) + r.seq_delta;
	in_ack = bpf_ntohl(p->tcp.ack_seq) + r.ack_delta;
	if (p->flags & TCP_ACK && seq_diff(in_ack, f->snd_nxt) > 0)
		return drop(DROP_ABOVE_SENT);
	failed = rewrite_packet(skb, p, o, &r, IN);
	if (failed)
		return drop(failed);
	if (p->flags & TCP_RST)
		return rst_in(skb, p, f, kernel, in_seq);
	if (!p->gateway && !p->tuple.tap)
		note_way_in(skb, f);
	flow_track_in(f, p, in_seq, in_ack, kernel);
	return flow_hides_window(f) && rewrite_close_window(skb, p) ? drop(DROP_REWRITE) : PASS;
}

/* `of` and `kind`: on whose account. */
static __noinline int for_daemon_of(struct __sk_buff *skb, const struct packet *p, __u32 of, __u32 kind)
{
	if (budget_take(of, kind))
		event_packet(skb, p, EVENT_PACKET, &p->tuple);
	return drop(DROP_SYNC);
}

/* On a wire or flow that is known here. */
static __always_inline int for_daemon(struct __sk_buff *skb, const struct packet *p)
{
	__u32 ports = (__u32)p->tuple.local_port << 16 | p->tuple.remote_port;

	return for_daemon_of(skb, p, ports, BUDGET_WIRE);
}

/* Our option, other than TI_OPEN, was found. */
static __always_inline bool is_synchronization(const struct options *o)
{
	return o->ti && o->ti_subtype != SUBTYPE_OPEN;
}

static __always_inline bool half_is_ours(const struct packet *p, __be32 half)
{
	struct tuple *kernel = bpf_map_lookup_elem(&tifids, &half);

	return kernel && kernel->tap == p->tuple.tap;
}

/* Our half of the TIFID that a SYN names; 0: it names no flow of ours.  All else that synchronizes one
 * would have come on a flow or wire that is known here.  A call of its own, for the sake of the
 * stack: "combined stack size of 2 calls is 544. Too large".
 */
static __noinline __be32 half_named(struct __sk_buff *skb, const struct packet *p,
				    const struct options *o)
{
	__be32 halves[2];

	option_tifid(skb, p, o, halves);
	if (half_is_ours(p, halves[0]))
		return halves[0];
	return half_is_ours(p, halves[1]) ? halves[1] : 0;
}

/* Any machine may forward what meets it: then it is not for us. */
static __noinline bool is_for_others(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = {
		.family = p->ipv6 ? AF_INET6 : AF_INET,
		.l4_protocol = IPPROTO_TCP,
		.sport = p->tuple.remote_port,
		.dport = p->tuple.local_port,
		.ifindex = skb->ifindex,
	};
	long way;

	if (p->ipv6) {
		__builtin_memcpy(fib.ipv6_src, &p->tuple.remote, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &p->tuple.local, sizeof(fib.ipv6_dst));
	} else {
		fib.ipv4_src = address_ip4(&p->tuple.remote);
		fib.ipv4_dst = address_ip4(&p->tuple.local);
	}
	way = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	return way >= 0 && way != BPF_FIB_LKUP_RET_NOT_FWDED && way != BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* On no flow or wire of ours.  A host behind a gateway, or a guest, may have a boundary of its own and
 * synchronizes by itself, end to end.
 */
static __always_inline int stray_in(struct __sk_buff *skb, const struct packet *p,
				    const struct options *o)
{
	__be32 half = half_named(skb, p, o);

	if (half)
		return for_daemon_of(skb, p, half, BUDGET_FLOW);
	if (!p->gateway && !p->tuple.tap && !is_for_others(skb, p))
		return for_daemon_of(skb, p, 0, BUDGET_STRAY);
	count(COUNT_END_TO_END);
	return PASS;
}

/* Anybody may be named by a claim, and goes on as if there were none.  What acknowledges our SYN/ACK
 * is from who has seen it: the claimant's data that has overtaken its CONFIRM, or the daemon's look
 * at that.  Our kernel, which has no such socket, would reset it.
 */
static __always_inline bool is_claimants(const struct packet *p, const struct wire *w)
{
	return p->flags & TCP_ACK && bpf_ntohl(p->tcp.ack_seq) == w->ack;
}

static __always_inline int wire_in(struct __sk_buff *skb, const struct packet *p,
				   const struct wire *w)
{
	struct tuple kernel = w->kernel;
	__u8 state = w->state;
	struct options o = {};

	if (state == WIRE_SYNCING)
		return for_daemon(skb, p);
	if (!options_are_usual(skb, p))
		option_scan(skb, p, &o);
	if (is_synchronization(&o))
		return for_daemon(skb, p);
	if (state == WIRE_PENDING)
		return is_claimants(p, w) ? drop(DROP_PENDING) : PASS;
	if (o.reason == LEGACY_MALFORMED)
		return drop(DROP_MALFORMED);
	return mapped_in(skb, p, &kernel, &o);
}

static __always_inline int unmoved_in(struct __sk_buff *skb, const struct packet *p,
				      struct flow *f)
{
	seq s = bpf_ntohl(p->tcp.seq);
	struct options o = {};

	if (p->flags & TCP_RST) {
		if (p->options)
			option_scan(skb, p, &o);
		if (is_synchronization(&o))
			return for_daemon(skb, p);
		return rst_in(skb, p, f, &p->tuple, s);
	}
	if (!p->tuple.tap)
		note_way_in(skb, f);
	if (p->fragment)
		return PASS;
	if (flow_track_in(f, p, s, bpf_ntohl(p->tcp.ack_seq), &p->tuple))
		return PASS;
	return flow_hides_window(f) && rewrite_close_window(skb, p) ? drop(DROP_REWRITE) : PASS;
}

/* From where the peer was when the flow began: it has lost all memory of it, or is somebody else who
 * has its address now.  The daemon asks both; none of them may be answered by our kernel yet.
 */
#define KNOCK_NS 250000000ULL
#define KNOCK_NEW_NS 10000000000ULL /* longer than it takes to ask */

static __always_inline int knock_in(struct __sk_buff *skb, const struct packet *p, struct flow *f)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!(p->flags & TCP_ACK) && now - f->knocked_at >= KNOCK_NS) {
		if (!f->knock || now - f->knocked_at >= KNOCK_NEW_NS)
			f->knock = bpf_get_prandom_u32() | 1;
		f->knocked_at = now;
		event_packet(skb, p, EVENT_KNOCK, &p->tuple);
	}
	return drop(DROP_OLD_PATH);
}

static __always_inline int old_path_in(struct __sk_buff *skb, const struct packet *p,
				       struct flow *f)
{
	f->old_path_at = bpf_ktime_get_coarse_ns();
	if (f->knock && p->flags & TCP_RST && bpf_ntohl(p->tcp.seq) == f->knock)
		event_packet(skb, p, EVENT_KNOCK, &p->tuple);
	return drop(DROP_OLD_PATH);
}

/* The question that the daemon asks there: it must not go to where the flow is now. */
static __always_inline bool is_knock_answer(const struct packet *p, const struct flow *f)
{
	return f->knock && !p->payload && bpf_ntohl(p->tcp.ack_seq) == f->knock;
}

static __always_inline int setup_in(struct __sk_buff *skb, const struct packet *p)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &p->tuple);
	struct wire *w = bpf_map_lookup_elem(&wires, &p->tuple);
	struct options o;

	option_scan(skb, p, &o);
	if (o.ti_ignored)
		count(COUNT_OPTION_IGNORED);
	if (is_synchronization(&o) && !w && !f)
		return stray_in(skb, p, &o);
	if (is_synchronization(&o) || (w && w->state == WIRE_SYNCING))
		return for_daemon(skb, p);
	if (w && w->state != WIRE_PENDING)
		return drop(DROP_TUPLE_IN_USE);
	if (f && f->active && !flow_is_over(f) && !syn_is_answered(p))
		return knock_in(skb, p, f);
	if (p->flags & TCP_ACK)
		return syn_ack_in(skb, p, &o);
	return syn_in(skb, p, &o);
}

static __always_inline int setup_out(struct __sk_buff *skb, const struct packet *p)
{
	struct wire *w = bpf_map_lookup_elem(&wires, &p->tuple);
	struct options o;

	option_scan(skb, p, &o);
	if (is_synchronization(&o))
		return PASS; /* the daemon's own */
	if (w && w->state != WIRE_PENDING) {
		/* Its program is told: it would wait for two minutes, and has another port to try. */
		if (!(p->flags & TCP_ACK))
			event_packet(skb, p, EVENT_IN_USE, &p->tuple);
		return drop(DROP_TUPLE_IN_USE);
	}
	if (o.ti)
		o.reason = LEGACY_INNER;
	if (p->flags & TCP_ACK)
		return syn_ack_out(skb, p, &o);
	return syn_out(skb, p, &o);
}

static __always_inline int tcp_out(struct __sk_buff *skb, struct packet *p)
{
	struct mapping *m;
	struct flow *f;
	__u32 way;

	if (p->flags & TCP_SYN)
		return setup_out(skb, p);
	f = bpf_map_lookup_elem(&flows, &p->tuple);
	if (!f)
		return p->tuple.tap ? tap_legacy_out(skb, p) : PASS;
	if (is_knock_answer(p, f))
		return PASS;
	m = flow_mapping(f);
	way = way_out(skb, p, f, m);
	if (!m && way != skb->ifindex)
		return leave_by(skb, way);
	if (flow_track_out(f, p, &p->tuple, bpf_ktime_get_coarse_ns()))
		return PASS;
	if (p->tuple.tap)
		tap_note_next_hop(skb, f);
	/* Whose it is shows only on its way out: what another host has sent has come in before. */
	if (p->gateway && p->forwarded && !(f->flags & FLOW_FORWARDED))
		__sync_fetch_and_or(&f->flags, FLOW_FORWARDED);
	if (f->flags & FLOW_HELD)
		return swallow(DROP_HELD);
	if (flow_ack_lags(f, p) && rewrite_seq(skb, p, f->snd_nxt))
		return drop(DROP_REWRITE);
	if (flow_is_frozen(f) && !p->fragment && rewrite_close_window(skb, p))
		return drop(DROP_REWRITE);
	m = flow_mapping(f);
	return m ? mapped_out(skb, p, f, m, way) : PASS;
}

static __always_inline int tcp_in(struct __sk_buff *skb, const struct packet *p)
{
	struct options o = {};
	struct wire *w;
	struct flow *f;

	if (p->flags & TCP_SYN)
		return setup_in(skb, p);
	f = bpf_map_lookup_elem(&flows, &p->tuple);
	if (f && !f->active)
		return unmoved_in(skb, p, f);
	if (f && !flow_is_over(f))
		return old_path_in(skb, p, f);
	w = bpf_map_lookup_elem(&wires, &p->tuple);
	if (w)
		return wire_in(skb, p, w);
	/* A CONFIRM or TI_RST of a synchronization that is forgotten: our kernel would reset it. */
	if (p->options >= OPTION_RST_LENGTH && !p->payload && !options_begin_usually(skb, p))
		option_scan(skb, p, &o);
	return is_synchronization(&o) ? stray_in(skb, p, &o) : PASS;
}

/* An error about a moved flow's packet.  Outgoing errors are those of a gateway about what came
 * in, so the quoted packet went the other way.
 */
static __always_inline int icmp_any(struct __sk_buff *skb, const struct packet *p,
				    enum direction direction)
{
	enum direction sent = direction == IN ? OUT : IN;
	struct tuple kernel;
	struct mapping *m;
	struct quoted q;
	struct flow *f;
	struct wire *w;
	int failed;

	if (p->fragment || quoted_parse(skb, p, &q, sent))
		return PASS;
	f = bpf_map_lookup_elem(&flows, &q.tuple);
	if (direction == OUT) {
		m = f ? flow_mapping(f) : 0;
		if (!m)
			return PASS;
		failed = rewrite_icmp(skb, p, &q, &m->wire, m->rcv_delta, sent);
	} else {
		if (f && f->active)
			return drop(DROP_OLD_PATH);
		w = f ? 0 : bpf_map_lookup_elem(&wires, &q.tuple);
		if (!w || w->state != WIRE_ACTIVE)
			return PASS;
		kernel = w->kernel;
		f = bpf_map_lookup_elem(&flows, &kernel);
		m = f ? flow_mapping(f) : 0;
		if (!m)
			return drop(DROP_REWRITE);
		if (!tuple_equal(&m->wire, &q.tuple))
			return drop(DROP_OLD_PATH);
		failed = rewrite_icmp(skb, p, &q, &kernel, -m->snd_delta, sent);
	}
	if (failed)
		return drop(failed);
	count(COUNT_ICMP_TRANSLATED);
	return PASS;
}

/* A mark that is not set marks nothing. */
static __always_inline bool is_marked(const struct __sk_buff *skb, __u32 mark)
{
	return mark && skb->mark == mark;
}

/* The daemon's own packets come as frames for nobody, so that netfilter does not see them.  By which
 * next hop they leave is for the kernel to say; then they come by here once more.
 */
static __always_inline bool is_for_next_hop(struct __sk_buff *skb)
{
	struct settings *s = skb->mark ? settings_read() : 0;

	if (!s || !is_marked(skb, s->mark_network))
		return false;
	skb->mark = 0;
	return true;
}

static __always_inline int host_egress(struct __sk_buff *skb, bool gateway)
{
	struct packet p;

	if (is_for_next_hop(skb))
		return bpf_redirect_neigh(skb->ifindex, 0, 0, 0);
	packet_parse(skb, &p, OUT);
	p.gateway = gateway;
	p.forwarded = !!skb->ingress_ifindex;
	if (p.protocol == IPPROTO_TCP)
		return tcp_out(skb, &p);
	if (p.protocol)
		return icmp_any(skb, &p, OUT);
	return PASS;
}

static __always_inline int host_ingress(struct __sk_buff *skb, bool gateway)
{
	struct packet p;

	/* Flooded by a switch, or seen because the interface is promiscuous: IP will drop it. */
	if (skb->pkt_type == PACKET_OTHERHOST)
		return PASS;
	packet_parse(skb, &p, IN);
	p.gateway = gateway;
	if (p.protocol == IPPROTO_TCP)
		return tcp_in(skb, &p);
	if (p.protocol)
		return icmp_any(skb, &p, IN);
	return PASS;
}

SEC("tc")
int boundary_egress(struct __sk_buff *skb)
{
	return host_egress(skb, false);
}

SEC("tc")
int boundary_ingress(struct __sk_buff *skb)
{
	return host_ingress(skb, false);
}

SEC("tc")
int gateway_egress(struct __sk_buff *skb)
{
	return host_egress(skb, true);
}

SEC("tc")
int gateway_ingress(struct __sk_buff *skb)
{
	return host_ingress(skb, true);
}

/* IP that cannot be read cannot be translated. */
static __always_inline int tap_unreadable(__be32 protocol, const struct place *place)
{
	bool ip = protocol == bpf_htons(ETH_P_IP) || protocol == bpf_htons(ETH_P_IPV6);

	return ip && place_is_away(place) ? drop(DROP_MALFORMED) : PASS;
}

/* Answers to others are broadcast as well.  RFC 2131, section 2: `chaddr` is at 28. */
static __always_inline bool tap_dhcp_is_guests(struct __sk_buff *skb, const struct packet *p,
					       const struct place *place)
{
	__u8 mac[ETH_ALEN];

	return !bpf_skb_load_bytes(skb, p->l4 + 8 + 28, mac, sizeof(mac)) &&
	       mac_equal(mac, place->guest_mac);
}

/* DHCP between these ports is between the guest and the daemon while the guest is away; at home the
 * daemon listens, to know what to answer later.  PASS: look further.
 */
static __always_inline int tap_dhcp(struct __sk_buff *skb, const struct packet *p,
				    const struct place *place, enum direction direction)
{
	struct { __be16 source, target; } ports;
	__u16 server = p->ipv6 ? 547 : 67, client = p->ipv6 ? 546 : 68;

	if (p->transport != IPPROTO_UDP || bpf_skb_load_bytes(skb, p->l4, &ports, sizeof(ports)))
		return PASS;
	if (ports.source != bpf_htons(direction == OUT ? client : server) ||
	    ports.target != bpf_htons(direction == OUT ? server : client))
		return PASS;
	if (p->ipv6 || tap_dhcp_is_guests(skb, p, place))
		event_guest(skb, p->ipv6 ? ETH_P_IPV6 : ETH_P_IP,
			    direction == OUT ? BUDGET_GUEST : BUDGET_DHCP);
	return place_is_away(place) ? drop(DROP_FOREIGN) : PASS;
}

static __always_inline void tap_learn(struct __sk_buff *skb, const struct packet *p,
				      struct place *place)
{
	__u8 mac[ETH_ALEN];

	if (!mac_is_known(place->guest_mac) &&
	    !bpf_skb_load_bytes(skb, ETH_ALEN, mac, sizeof(mac)))
		__builtin_memcpy(place->guest_mac, mac, sizeof(mac));
	if (p->ipv6)
		place_learn6(place, &p->tuple.local);
}

static __always_inline int place_out(struct __sk_buff *skb, const struct packet *p,
				     const struct place *place)
{
	int failed;

	if (!place_is_inside(place, &p->tuple.local, p->ipv6)) {
		/* Of the link only, or before there is an address: the same at every place. */
		bool link = p->ipv6 ? address_is_link_local(&p->tuple.local) ||
					      !address_prefix(&p->tuple.local)
				    : !address_ip4(&p->tuple.local);

		return link ? PASS : drop(DROP_FOREIGN);
	}
	failed = place_has(place, p->ipv6) ? place_rewrite(skb, p, place, OUT) : DROP_FOREIGN;
	if (!failed)
		failed = place_next_hop(skb, place, p->ipv6);
	return failed ? drop(failed) : PASS;
}

/* Between several: DHCP, ND and redirects have been looked at. */
static __always_inline bool address_is_of_many(const struct address *a, bool ipv6)
{
	if (ipv6)
		return a->byte[0] == 0xff;
	return a->byte[12] >= 224;
}

/* Returns 0 with *p in the guest's view, or a drop reason. */
static __always_inline int place_in(struct __sk_buff *skb, struct packet *p,
				    const struct place *place)
{
	int failed;

	if (address_is_of_many(&p->tuple.local, p->ipv6) ||
	    (p->ipv6 && address_is_link_local(&p->tuple.local)))
		return 0;
	if (!place_is_outside(place, &p->tuple.local, p->ipv6))
		return DROP_FOREIGN;
	failed = place_rewrite(skb, p, place, IN);
	if (failed)
		return failed;
	if (p->ipv6)
		__builtin_memcpy(&p->tuple.local, &place->inside6, 8);
	else
		p->tuple.local = place->inside4;
	return 0;
}

static __always_inline int tap_out(struct __sk_buff *skb, struct packet *p, struct place *place)
{
	int verdict;

	tap_learn(skb, p, place);
	verdict = tap_dhcp(skb, p, place, OUT);
	if (verdict == PASS && place_is_away(place))
		verdict = nd_from_guest(skb, p, place);
	if (verdict != PASS)
		return verdict;
	if (p->protocol == IPPROTO_TCP)
		verdict = tcp_out(skb, p);
	else if (p->protocol)
		verdict = icmp_any(skb, p, OUT);
	return verdict == PASS && place_is_away(place) ? place_out(skb, p, place) : verdict;
}

static __always_inline int tap_in(struct __sk_buff *skb, struct packet *p, struct place *place)
{
	int verdict = tap_dhcp(skb, p, place, IN);
	int failed;

	if (verdict == PASS)
		verdict = nd_from_network(skb, p, place);
	if (verdict != PASS)
		return verdict;
	if (place_is_away(place)) {
		failed = icmp4_is_redirect(skb, p) ? DROP_FOREIGN : place_in(skb, p, place);
		if (failed)
			return drop(failed);
	}
	if (p->protocol == IPPROTO_TCP)
		return tcp_in(skb, p);
	return p->protocol ? icmp_any(skb, p, IN) : PASS;
}

/* What the guest sends.  Frames of the daemon in its name come by here as well, marked: they only
 * need an outside address, if they have an inside one.
 */
SEC("tc")
int tap_ingress(struct __sk_buff *skb)
{
	struct place *place = place_of(skb->ifindex);
	struct settings *s = settings_read();
	__be32 protocol = skb->protocol;
	struct packet p;
	bool ours, verbatim;

	if (!s)
		return PASS;
	ours = is_marked(skb, s->mark_network);
	verbatim = is_marked(skb, s->mark_verbatim);
	/* It has done its work.  With it, the tap of another VM would turn the frame round once more. */
	if (ours || verbatim)
		skb->mark = 0;
	if (!place || verbatim)
		return PASS;
	if (protocol == bpf_htons(ETH_P_ARP))
		return ours ? PASS : arp_from_guest(skb, place);
	packet_parse(skb, &p, OUT);
	p.tuple.tap = skb->ifindex;
	if (!p.ip)
		return tap_unreadable(protocol, place);
	if (!ours)
		return tap_out(skb, &p, place);
	if (!place_is_away(place) || !place_is_inside(place, &p.tuple.local, p.ipv6))
		return PASS;
	return place_out(skb, &p, place);
}

/* What is flooded by the bridge for somebody else is not: the guest's card will drop it.  A function
 * of its own for the 8 bytes of stack that tap_egress must not have more of: Linux 6.1 rounds each
 * frame up to 32 bytes, and 352 + 96 + 64 is all that there is.
 */
static __noinline bool tap_is_guests(struct __sk_buff *skb, const struct place *place)
{
	__u8 mac[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, mac, sizeof(mac)))
		return false;
	return mac[0] & 1 || !mac_is_known(place->guest_mac) || mac_equal(mac, place->guest_mac);
}

/* What the guest receives. */
SEC("tc")
int tap_egress(struct __sk_buff *skb)
{
	struct place *place = place_of(skb->ifindex);
	struct settings *s = settings_read();
	__be32 protocol = skb->protocol;
	struct packet p;

	if (!place || !s)
		return PASS;
	if (is_marked(skb, s->mark_guest))
		return PASS;
	if (is_marked(skb, s->mark_network) || is_marked(skb, s->mark_verbatim))
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	if (!tap_is_guests(skb, place))
		return PASS;
	if (protocol == bpf_htons(ETH_P_ARP))
		return arp_from_network(skb, place);
	packet_parse(skb, &p, IN);
	p.tuple.tap = skb->ifindex;
	return p.ip ? tap_in(skb, &p, place) : tap_unreadable(protocol, place);
}

/* What is rewritten in place has one length, and one interface to leave by. */
static __always_inline bool wire_is_alike(const struct tuple *wire, const struct tuple *kernel)
{
	bool four = address_is_mapped(&kernel->remote);

	return address_is_mapped(&wire->remote) == four &&
	       address_is_mapped(&wire->local) == four && wire->tap == kernel->tap;
}

/* Commits a mapping: the inactive one is written, its wire made known, then one store makes it
 * count.  A packet on another CPU sees the old or the new mapping, never half of one.
 *
 * The former wire stays known until the daemon sweeps it: late packets on it would reach a kernel
 * that has no such socket and answers with a reset, which a peer that has not committed yet
 * would take for ours.
 */
static __always_inline int command_map(struct command *c, struct flow *f,
				       const struct tuple *kernel)
{
	__u32 active = f->active == 1 ? 2 : 1;
	struct mapping *next = active == 1 ? &f->mapping[0] : &f->mapping[1];
	struct wire w = { .kernel = *kernel, .state = WIRE_ACTIVE };

	if ((__s16)(c->epoch - f->epoch) <= 0)
		return -ESTALE;
	*next = c->mapping;
	if (!wire_is_alike(&next->wire, kernel))
		return -EINVAL;
	if (bpf_map_update_elem(&wires, &next->wire, &w, BPF_ANY))
		return -ENOSPC;
	f->epoch = c->epoch;
	f->frozen_until = 0;
	f->resent = 0;
	f->moves++;
	f->moved_at = bpf_ktime_get_ns();
	f->gap_since = f->seen_in;
	f->rcv_before = f->active ? seq_max(f->rcv_before, f->rcv_max) : f->rcv_max;
	f->rcv_max = next->rcv_base;
	/* The ACK that the daemon injects does not come by here. */
	if (seq_diff(next->snd_base, f->snd_una) > 0) {
		f->snd_una = next->snd_base;
		__sync_fetch_and_and(&f->flags, ~FLOW_CLOSED);
	}
	/* Who has shown the key has had our SYN/ACK. */
	if (f->flags & FLOW_EMBRYONIC)
		embryo_grow(f, kernel);
	if (c->unproven)
		__sync_fetch_and_or(&f->flags, FLOW_UNPROVEN);
	else
		__sync_fetch_and_and(&f->flags, ~FLOW_UNPROVEN);
	f->untaken = f->behind = 0;
	__sync_fetch_and_and(&f->flags, ~(FLOW_STALLED | FLOW_STUCK));
	barrier();
	f->active = active;
	if (!c->held)
		__sync_fetch_and_and(&f->flags, ~FLOW_HELD);
	return 0;
}

SEC("syscall")
int boundary_command(struct command *c)
{
	struct tuple kernel = c->kernel;
	struct flow *f = bpf_map_lookup_elem(&flows, &kernel);

	c->result = -ENOENT;
	if (!f)
		return 0;
	c->flow = *f;
	c->result = 0;
	switch (c->verb) {
	case VERB_HOLD:
		__sync_fetch_and_or(&f->flags, FLOW_HELD);
		break;
	case VERB_RELEASE:
		f->frozen_until = 0;
		__sync_fetch_and_and(&f->flags, ~FLOW_HELD);
		break;
	case VERB_CLOSE:
		__sync_fetch_and_or(&f->flags, FLOW_CLOSED);
		break;
	case VERB_GO_ON:
		__sync_fetch_and_and(&f->flags, ~FLOW_RESET);
		break;
	case VERB_LET_GO:
		__sync_fetch_and_and(&f->flags, ~FLOW_BOTH_WAYS);
		break;
	case VERB_FREEZE:
		f->frozen_until = c->until;
		break;
	case VERB_MAP:
		c->result = command_map(c, f, &kernel);
		break;
	case VERB_FORGET:
		flow_forget(&kernel, f);
		break;
	default:
		c->result = -EINVAL;
	}
	return 0;
}
