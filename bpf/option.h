/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* TCP options: one walk that notes what there is. */
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
	__u8 used;       /* bytes of all that is no padding */
	__u8 nops;       /* how many follow each other, so far */
	__u8 full;       /* too many did: whoever pads so wants no option of ours */
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
		if (++w->found->nops >= OPTION_NOPS_FULL)
			w->found->full = 1;
		w->at++;
		return 0;
	}
	w->found->nops = 0;
	if (left < 2 || o.length < 2 || o.length > left) {
		w->found->reason = LEGACY_MALFORMED;
		return 1;
	}
	option_note(&o, w->at, w->flags, w->found);
	w->found->used += o.length;
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

#endif
