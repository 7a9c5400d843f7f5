/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* TCP options: one walk that notes what there is, and the insertion of TI_OPEN. */
#ifndef TIFLOW_OPTION_H
#define TIFLOW_OPTION_H

#include "packet.h"

#define OPTIONS_MAX 40 /* RFC 9293: the header has 60 bytes, 20 of them fixed */

#define TCPOPT_END 0
#define TCPOPT_NOP 1
#define TCPOPT_MSS 2
#define TCPOPT_WSCALE 3
#define TCPOPT_SACK_PERMITTED 4
#define TCPOPT_SACK 5
#define TCPOPT_TIMESTAMPS 8
#define TCPOPT_MD5 19       /* RFC 2385 */
#define TCPOPT_AO 29        /* RFC 5925 */
#define TCPOPT_MPTCP 30     /* RFC 8684 */
#define TCPOPT_FAST_OPEN 34 /* RFC 7413; the older experimental form is kind 254, ExID 0xf989 */
#define TCPOPT_EXPERIMENT 254
#define FAST_OPEN_EXID 0xf989

struct options {
	__u16 mss;
	__u16 reason;   /* enum reason: an option that forbids TI_OPEN, or LEGACY_MALFORMED */
	__u8 wscale;
	__u8 negotiated; /* enum negotiated */
	__u8 sack;       /* offset of the SACK option, 0: none (offsets count from the TCP header) */
	__u8 sack_blocks;
	__u8 ti;         /* offset of our option, 0: none */
	__u8 ti_subtype;
	__u8 ti_ignored; /* kind and ExID are ours; version, subtype or length is not */
	__u8 end;        /* offset of the end-of-list option, 0: none */
};

struct option_head {
	__u8 kind;
	__u8 length;
	__be16 exid;
	__u8 version_subtype;
};

/* PROTOCOL.md, section "Container": the length tells a known subtype from an unknown one. */
static __always_inline bool option_is_known(const struct option_head *o, __u8 flags)
{
	if (o->version_subtype >> 4 != OPTION_VERSION)
		return false;
	switch (o->version_subtype & 15) {
	case SUBTYPE_OPEN:
		return o->length == OPTION_OPEN_LENGTH && flags & TCP_SYN;
	case SUBTYPE_SYNC:
		return o->length == OPTION_SYNC_LENGTH && flags & TCP_SYN;
	case SUBTYPE_CONFIRM:
		return o->length == OPTION_CONFIRM_LENGTH && !(flags & (TCP_SYN | TCP_RST));
	case SUBTYPE_RST:
		return o->length == OPTION_RST_LENGTH && flags & TCP_RST;
	}
	return false;
}

static __always_inline void option_note_ti(const struct option_head *o, __u32 at, __u8 flags,
					   struct options *found)
{
	if (o->exid != bpf_htons(OPTION_EXID))
		return;
	if (!option_is_known(o, flags)) {
		found->ti_ignored = 1;
		return;
	}
	found->ti = at;
	found->ti_subtype = o->version_subtype & 15;
}

/* What stands in the way of TI_OPEN; each of these takes part in the same option space or in the
 * meaning of the segment (PROTOCOL.md, section "When TI_OPEN is left out").
 */
static __always_inline __u16 option_forbids(const struct option_head *o)
{
	switch (o->kind) {
	case TCPOPT_MPTCP:
		return LEGACY_MPTCP;
	case TCPOPT_MD5:
		return LEGACY_MD5;
	case TCPOPT_AO:
		return LEGACY_TCP_AO;
	case TCPOPT_FAST_OPEN:
		return LEGACY_FAST_OPEN;
	case TCPOPT_EXPERIMENT:
		if (o->length >= 4 && o->exid == bpf_htons(FAST_OPEN_EXID))
			return LEGACY_FAST_OPEN;
	}
	return REASON_NONE;
}

static __always_inline void option_note(const struct option_head *o, __u32 at, __u8 flags,
					struct options *found)
{
	__u16 reason = option_forbids(o);

	if (reason)
		found->reason = reason;
	else if (o->kind == TCPOPT_MSS && o->length == 4)
		found->mss = bpf_ntohs(o->exid);
	else if (o->kind == TCPOPT_WSCALE && o->length == 3)
		found->wscale = o->exid & 0xff, found->negotiated |= NEGOTIATED_WSCALE;
	else if (o->kind == TCPOPT_SACK_PERMITTED)
		found->negotiated |= NEGOTIATED_SACK;
	else if (o->kind == TCPOPT_TIMESTAMPS && o->length == 10)
		found->negotiated |= NEGOTIATED_TIMESTAMPS;
	else if (o->kind == TCPOPT_SACK && o->length >= 10)
		found->sack = at, found->sack_blocks = (o->length - 2) / 8;
	else if (o->kind == OPTION_KIND && o->length >= 5)
		option_note_ti(o, at, flags, found);
}

struct option_walk {
	struct __sk_buff *skb;
	struct options *found;
	__u32 l4;
	__u32 at; /* offset from the TCP header */
	__u32 end;
	__u8 flags;
};

/* One option: its kind, and as much of what follows as there is. */
static long option_step(__u32 step __attribute__((unused)), struct option_walk *w)
{
	struct option_head o = {};
	__u32 left = w->end - w->at;
	__u32 beyond = left <= sizeof(o) ? left - 1 : sizeof(o) - 1;

	/* The length is said as 1 + what the verifier has just seen bounded, in one register: Linux
	 * 6.1 neither follows 32-bit copies nor learns from `!= 0` ("invalid zero-sized read").
	 */
	asm volatile("" : "+r"(beyond));
	if (w->at >= w->end || beyond >= sizeof(o))
		return 1;
	if (bpf_skb_load_bytes(w->skb, w->l4 + w->at, &o, 1 + beyond))
		return 1;
	if (o.kind == TCPOPT_END) {
		w->found->end = w->at;
		return 1;
	}
	if (o.kind == TCPOPT_NOP) {
		w->at++;
		return 0;
	}
	if (left < 2 || o.length < 2 || o.length > left) {
		w->found->reason = LEGACY_MALFORMED;
		return 1;
	}
	option_note(&o, w->at, w->flags, w->found);
	w->at += o.length;
	return 0;
}

/* bpf_loop, because the verifier (6.1 to 6.18) follows every path of every turn of an ordinary
 * loop here: "BPF program is too large. Processed 1000001 insn".
 */
static __noinline int option_scan(struct __sk_buff *skb, const struct packet *p,
				  struct options *found)
{
	struct option_walk w = {
		.skb = skb,
		.found = found,
		.l4 = p->l4,
		.at = sizeof(struct tcphdr),
		.end = sizeof(struct tcphdr) + p->options,
		.flags = p->flags,
	};

	__builtin_memset(found, 0, sizeof(*found));
	bpf_loop(OPTIONS_MAX, option_step, &w, 0);
	return 0;
}

/* Of a SYN with TI_SYNC; 0 each if it has none. */
static __always_inline void option_tifid(struct __sk_buff *skb, const struct packet *p,
					 const struct options *o, __be32 halves[2])
{
	if (o->ti_subtype != SUBTYPE_SYNC || p->flags & TCP_ACK ||
	    bpf_skb_load_bytes(skb, p->l4 + o->ti + OPTION_TIFID_AT, halves, 8))
		halves[0] = halves[1] = 0;
}

/* Two NOPs and timestamps: what nearly every segment begins with, and none of the daemon's. */
static __always_inline bool options_begin_usually(struct __sk_buff *skb, const struct packet *p)
{
	__be32 front = 0;

	bpf_skb_load_bytes(skb, p->l4 + sizeof(struct tcphdr), &front, sizeof(front));
	return front == bpf_htonl(TCPOPT_NOP << 24 | TCPOPT_NOP << 16 | TCPOPT_TIMESTAMPS << 8 | 10);
}

/* Nothing there to translate.  A single SACK block behind two NOPs is as long as timestamps. */
static __always_inline bool options_are_usual(struct __sk_buff *skb, const struct packet *p)
{
	return !p->options || (p->options == 12 && options_begin_usually(skb, p));
}

/* Nothing behind an end-of-list is read (RFC 9293, section 3.1): up to three bytes of padding
 * become NOPs, so that an option can be appended.
 */
static __always_inline int option_unpad(struct __sk_buff *skb, const struct packet *p, __u32 padding)
{
	__u32 at = p->l4 + sizeof(struct tcphdr) + p->options - 4;
	__be32 old, new;

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return -1;
	new = old & bpf_htonl(~0U << 8 * padding);
	new |= bpf_htonl(0x010101 & ~(~0U << 8 * padding));
	if (bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0))
		return -1;
	return bpf_l4_csum_replace(skb, p->l4 + 16, old, new, sizeof(new));
}

/* Appends TI_OPEN to the options of a SYN, which carries no payload, so the options end where
 * the packet ends.  Returns 0, or a legacy reason with the packet untouched, or DROP_REWRITE.
 */
static __always_inline int option_insert(struct __sk_buff *skb, const struct packet *p,
					 const struct options *o, const struct ti_open *option)
{
	const __u32 added = sizeof(*option);
	__u32 end = p->l4 + sizeof(struct tcphdr) + p->options;
	__u32 padding = o->end ? sizeof(struct tcphdr) + p->options - o->end : 0;
	__be16 old_word, new_word, old_length, new_length;
	struct tcphdr tcp = p->tcp;
	__s64 sum;

	if (p->payload || p->options + added > OPTIONS_MAX || padding > 3)
		return LEGACY_NO_ROOM;
	if (bpf_skb_change_tail(skb, end + added, 0))
		return LEGACY_NO_ROOM;
	if (padding && option_unpad(skb, p, padding))
		return DROP_REWRITE;

	old_word = ((__be16 *)&tcp)[6];
	tcp.doff += added / 4;
	new_word = ((__be16 *)&tcp)[6];
	sum = bpf_csum_diff(0, 0, (__be32 *)option, added, 0);
	if (sum < 0 || bpf_skb_store_bytes(skb, end, option, added, 0) ||
	    bpf_skb_store_bytes(skb, p->l4 + 12, &new_word, 2, 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, 0, sum, 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, old_word, new_word, 2))
		return DROP_REWRITE;

	/* The TCP length in the pseudo-header grows; with a partial checksum that is all. */
	old_length = bpf_htons(p->length);
	new_length = bpf_htons(p->length + added);
	if (bpf_l4_csum_replace(skb, p->l4 + 16, old_length, new_length, BPF_F_PSEUDO_HDR | 2))
		return DROP_REWRITE;
	if (p->ipv6) {
		new_length = bpf_htons(end + added - p->l3 - sizeof(struct ipv6hdr));
		return bpf_skb_store_bytes(skb, p->l3 + 4, &new_length, 2, 0) ? DROP_REWRITE : 0;
	}
	old_length = bpf_htons(end - p->l3);
	new_length = bpf_htons(end + added - p->l3);
	if (bpf_skb_store_bytes(skb, p->l3 + 2, &new_length, 2, 0) ||
	    bpf_l3_csum_replace(skb, p->l3 + 10, old_length, new_length, 2))
		return DROP_REWRITE;
	return 0;
}

#endif
