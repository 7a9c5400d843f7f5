/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Between kernel view and wire view: addresses, ports, SEQ, ACK, SACK blocks, and the packet that
 * an ICMP error quotes.  Everything here either succeeds or returns a drop reason: a packet is
 * never half rewritten.
 */
#ifndef TIFLOW_REWRITE_H
#define TIFLOW_REWRITE_H

#include "checksum.h"
#include "option.h"

/* What one packet becomes. */
struct rewrite {
	const struct tuple *tuple; /* the new one; no copy: Linux 6.1 allows a chain of calls 512 bytes */
	seq seq_delta;      /* to add */
	seq ack_delta;      /* to add to ACK and SACK blocks */
	seq ack_limit;      /* outgoing, in the old view: no ACK or SACK block above this */
	seq sack_from;      /* the same: no SACK block begins below */
	__u8 limited;       /* ack_limit and sack_from count */
	__u8 clamped;       /* out: the ACK was lowered */
	__u8 blocks_dropped; /* out */
};

/* The first 12 bytes of a TCP header: all that changes in the fixed part. */
struct tcp_front {
	__be16 source;
	__be16 target;
	__be32 seq;
	__be32 ack;
};

struct addresses4 {
	__be32 source;
	__be32 target;
};

struct addresses6 {
	struct address source;
	struct address target;
};

static __always_inline void addresses4_of(struct addresses4 *a, const struct tuple *t,
					  enum direction direction)
{
	a->source = address_ip4(direction == OUT ? &t->local : &t->remote);
	a->target = address_ip4(direction == OUT ? &t->remote : &t->local);
}

static __always_inline void addresses6_of(struct addresses6 *a, const struct tuple *t,
					  enum direction direction)
{
	a->source = direction == OUT ? t->local : t->remote;
	a->target = direction == OUT ? t->remote : t->local;
}

/* Stores the addresses of `to` over those of `from` in the IP header at `l3`, with the header
 * checksum of IPv4.  Returns what the change adds to a sum over the addresses, negative: failed.
 */
static __always_inline __s64 rewrite_addresses(struct __sk_buff *skb, bool ipv6, __u32 l3,
					       const struct tuple *from, const struct tuple *to,
					       enum direction direction)
{
	__s64 sum;

	if (ipv6) {
		struct addresses6 old, new;

		addresses6_of(&old, from, direction);
		addresses6_of(&new, to, direction);
		sum = bpf_csum_diff((__be32 *)&old, sizeof(old), (__be32 *)&new, sizeof(new), 0);
		if (sum < 0 || bpf_skb_store_bytes(skb, l3 + 8, &new, sizeof(new), 0))
			return -1;
	} else {
		struct addresses4 old, new;

		addresses4_of(&old, from, direction);
		addresses4_of(&new, to, direction);
		sum = bpf_csum_diff((__be32 *)&old, sizeof(old), (__be32 *)&new, sizeof(new), 0);
		if (sum < 0 || bpf_skb_store_bytes(skb, l3 + 12, &new, sizeof(new), 0) ||
		    bpf_l3_csum_replace(skb, l3 + 10, 0, sum, 0))
			return -1;
	}
	return sum;
}

/* A block above the limit is about bytes that the new wire has not carried, which a stateful firewall
 * would take for forged.  One that begins among what came by former wires, and had not told the peer
 * then, tells it too late: Linux takes the time since for a round trip, and its timeout, which no kick
 * gets below, becomes as long; and F-RTO takes its last timeout for spurious.  Below the ACK it is a
 * D-SACK (RFC 2883), which tells of no round trip.
 */
static __always_inline bool rewrite_leaves_out(const struct rewrite *r, const struct packet *p,
					       seq left, seq right)
{
	if (!r->limited)
		return false;
	if (seq_diff(right, r->ack_limit) > 0)
		return true;
	return seq_diff(left, r->sack_from) < 0 && seq_diff(right, bpf_ntohl(p->tcp.ack_seq)) > 0;
}

/* SACK blocks (RFC 2018) name the other direction's sequence numbers, as ACK does.  Where one is left
 * out, the rest moves up, NOPs fill the end.
 */
static __noinline int rewrite_sack(struct __sk_buff *skb, const struct packet *p, __u32 at,
				   __u32 blocks, struct rewrite *r)
{
	__u8 kept = 0;
	__u64 nops = 0x0101010101010101ULL;

	for (__u32 i = 0; i < 4 && i < blocks; i++) {
		__be32 edge[2];
		seq left, right;

		if (bpf_skb_load_bytes(skb, at + 2 + i * 8, edge, sizeof(edge)))
			return -1;
		left = bpf_ntohl(edge[0]);
		right = bpf_ntohl(edge[1]);
		if (rewrite_leaves_out(r, p, left, right))
			continue;
		edge[0] = bpf_htonl(left + r->ack_delta);
		edge[1] = bpf_htonl(right + r->ack_delta);
		if (bpf_skb_store_bytes(skb, at + 2 + kept * 8, edge, sizeof(edge), 0))
			return -1;
		kept++;
	}
	if (kept == blocks)
		return 0;
	r->blocks_dropped = blocks - kept;
	for (__u32 i = 0; i < 4; i++) {
		if (i >= kept && i < blocks &&
		    bpf_skb_store_bytes(skb, at + 2 + i * 8, &nops, sizeof(nops), 0))
			return -1;
	}
	if (kept) {
		__u8 length = 2 + kept * 8;

		return bpf_skb_store_bytes(skb, at + 1, &length, 1, 0);
	}
	return bpf_skb_store_bytes(skb, at, &nops, 2, 0);
}

/* The sum over all options; negative if they cannot be read.  In a function of its own for its
 * buffer: Linux 6.1 rounds each frame up to 32 bytes and allows 512 for a chain of calls.
 */
static __noinline __s64 rewrite_options_sum(struct __sk_buff *skb, const struct packet *p)
{
	__be32 options[OPTIONS_MAX / 4] = {};
	__u32 length = p->options;

	if (length < 4 || length > OPTIONS_MAX)
		return -1;
	if (bpf_skb_load_bytes(skb, p->l4 + sizeof(struct tcphdr), options, length))
		return -1;
	return bpf_csum_diff(0, 0, options, sizeof(options), 0);
}

/* The option may start at an odd offset, where summing block by block would need byte swaps; the
 * sum over all options before and after is right at any offset.
 */
static __noinline int rewrite_sack_option(struct __sk_buff *skb, const struct packet *p,
					  __u32 sack_blocks, __u32 sack_at, struct rewrite *r)
{
	__s64 sum = rewrite_options_sum(skb, p);
	__be32 old = sum, new;

	if (sum < 0 || rewrite_sack(skb, p, p->l4 + sack_at, sack_blocks, r))
		return -1;
	sum = rewrite_options_sum(skb, p);
	new = sum;
	if (sum < 0)
		return -1;
	/* A sum of words is itself a word of the same sum. */
	sum = bpf_csum_diff(&old, sizeof(old), &new, sizeof(new), 0);
	if (sum < 0)
		return -1;
	return bpf_l4_csum_replace(skb, p->l4 + 16, 0, sum, 0);
}

static __always_inline seq rewrite_ack(const struct packet *p, struct rewrite *r)
{
	seq ack = bpf_ntohl(p->tcp.ack_seq);

	if (r->limited && seq_diff(ack, r->ack_limit) > 0) {
		ack = r->ack_limit;
		r->clamped = 1;
	}
	return ack + r->ack_delta;
}

/* Returns 0 or a drop reason. */
static __always_inline int rewrite_packet(struct __sk_buff *skb, const struct packet *p,
					  const struct options *o, struct rewrite *r,
					  enum direction direction)
{
	struct tcp_front old, new;
	__s64 sum;

	__builtin_memcpy(&old, &p->tcp, sizeof(old));
	new = old;
	new.source = direction == OUT ? r->tuple->local_port : r->tuple->remote_port;
	new.target = direction == OUT ? r->tuple->remote_port : r->tuple->local_port;
	new.seq = bpf_htonl(bpf_ntohl(old.seq) + r->seq_delta);
	if (p->flags & TCP_ACK)
		new.ack = bpf_htonl(rewrite_ack(p, r));

	if (o->sack && rewrite_sack_option(skb, p, o->sack_blocks, o->sack, r))
		return DROP_REWRITE;
	sum = rewrite_addresses(skb, p->ipv6, p->l3, &p->tuple, r->tuple, direction);
	if (sum < 0 || checksum_replace_addresses(skb, p, p->l4 + 16, sum))
		return DROP_REWRITE;
	sum = bpf_csum_diff((__be32 *)&old, sizeof(old), (__be32 *)&new, sizeof(new), 0);
	if (sum < 0 || bpf_skb_store_bytes(skb, p->l4, &new, sizeof(new), 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, 0, sum, 0))
		return DROP_REWRITE;
	return 0;
}

/* Says that there is no room for more.  Returns 0 or a drop reason. */
static __always_inline int rewrite_close_window(struct __sk_buff *skb, const struct packet *p)
{
	__be16 closed = 0;

	if (bpf_skb_store_bytes(skb, p->l4 + 14, &closed, sizeof(closed), 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, p->tcp.window, closed, sizeof(closed)))
		return DROP_REWRITE;
	return 0;
}

/* Gives a segment another SEQ, here and in `p`.  Returns 0 or a drop reason. */
static __always_inline int rewrite_seq(struct __sk_buff *skb, struct packet *p, seq to)
{
	__be32 changed = bpf_htonl(to);

	if (bpf_skb_store_bytes(skb, p->l4 + 4, &changed, sizeof(changed), 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, p->tcp.seq, changed, sizeof(changed)))
		return DROP_REWRITE;
	p->tcp.seq = changed;
	return 0;
}

/* ICMP errors (RFC 792, RFC 4443): 8 bytes, then the packet in question from its IP header on, of
 * which at least ports and SEQ are there.
 */
struct quoted {
	struct tuple tuple; /* local first */
	__be32 seq;
	__be16 ports[2];    /* as quoted */
	__u32 l3;
	__u32 l4;
};

#define ICMP_HEADER 8

static __always_inline bool icmp_is_error(__u8 type, bool ipv6)
{
	if (ipv6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 11 || type == 12;
}

static __always_inline int quoted_parse_ip(struct __sk_buff *skb, bool ipv6, struct quoted *q,
					   enum direction sent)
{
	if (ipv6) {
		struct ipv6hdr ip;
		__u8 fragment;

		if (bpf_skb_load_bytes(skb, q->l3, &ip, sizeof(ip)))
			return -1;
		q->l4 = q->l3 + sizeof(ip);
		if (packet_extensions(skb, ip.nexthdr, &q->l4, &fragment) != IPPROTO_TCP)
			return -1;
		packet_addresses6(&q->tuple, &ip, sent);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, q->l3, &ip, sizeof(ip)))
			return -1;
		if (ip.protocol != IPPROTO_TCP || ip.ihl < 5)
			return -1;
		q->l4 = q->l3 + ip.ihl * 4;
		packet_addresses4(&q->tuple, &ip, sent);
	}
	return 0;
}

/* `sent`: the direction in which the quoted packet went, the opposite of the error's own. */
static __always_inline int quoted_parse(struct __sk_buff *skb, const struct packet *p,
					struct quoted *q, enum direction sent)
{
	struct { __be16 ports[2]; __be32 seq; } front;
	__u8 type;

	__builtin_memset(q, 0, sizeof(*q));
	if (bpf_skb_load_bytes(skb, p->l4, &type, 1) || !icmp_is_error(type, p->ipv6))
		return -1;
	q->l3 = p->l4 + ICMP_HEADER;
	q->tuple.tap = p->tuple.tap;
	if (quoted_parse_ip(skb, p->ipv6, q, sent) ||
	    bpf_skb_load_bytes(skb, q->l4, &front, sizeof(front)))
		return -1;
	q->seq = front.seq;
	q->ports[0] = front.ports[0];
	q->ports[1] = front.ports[1];
	packet_ports(&q->tuple, front.ports[0], front.ports[1], sent);
	return 0;
}

/* The outer addresses: an end of the flow's old view is replaced by its end in the new view; a
 * router that sent the error keeps its own.
 */
static __always_inline void rewrite_icmp_outer(const struct packet *p, const struct quoted *q,
					       const struct tuple *view, struct tuple *outer)
{
	*outer = p->tuple;
	if (address_equal(&outer->local, &q->tuple.local))
		outer->local = view->local;
	if (address_equal(&outer->remote, &q->tuple.remote))
		outer->remote = view->remote;
}

/* Moves the quoted packet, and the error around it, into the view `tuple`.  The quoted IPv4
 * header's own checksum is mended, so that it adds nothing to the sum over the ICMP message.
 * Returns 0 or a drop reason.
 */
static __always_inline int rewrite_icmp(struct __sk_buff *skb, const struct packet *p,
					const struct quoted *q, const struct tuple *tuple,
					seq seq_delta, enum direction sent)
{
	struct { __be16 ports[2]; __be32 seq; } old, new;
	enum direction direction = sent == OUT ? IN : OUT;
	__u32 check = p->l4 + 2;
	struct tuple outer;
	__s64 sum;

	sum = rewrite_addresses(skb, p->ipv6, q->l3, &q->tuple, tuple, sent);
	if (sum < 0 || (p->ipv6 && bpf_l4_csum_replace(skb, check, 0, sum, 0)))
		return DROP_REWRITE;

	old.ports[0] = q->ports[0];
	old.ports[1] = q->ports[1];
	old.seq = q->seq;
	new.ports[0] = sent == OUT ? tuple->local_port : tuple->remote_port;
	new.ports[1] = sent == OUT ? tuple->remote_port : tuple->local_port;
	new.seq = bpf_htonl(bpf_ntohl(q->seq) + seq_delta);
	sum = bpf_csum_diff((__be32 *)&old, sizeof(old), (__be32 *)&new, sizeof(new), 0);
	if (sum < 0 || bpf_skb_store_bytes(skb, q->l4, &new, sizeof(new), 0) ||
	    bpf_l4_csum_replace(skb, check, 0, sum, 0))
		return DROP_REWRITE;

	rewrite_icmp_outer(p, q, tuple, &outer);
	sum = rewrite_addresses(skb, p->ipv6, p->l3, &p->tuple, &outer, direction);
	if (sum < 0 || (p->ipv6 && checksum_replace_addresses(skb, p, check, sum)))
		return DROP_REWRITE;
	return 0;
}

#endif
