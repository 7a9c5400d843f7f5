/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Room for TI_OPEN in a SYN or SYN/ACK: behind its options as they are; where that is not enough,
 * behind what is left of them without padding.  macOS, say, pads 19 bytes of options to 24.
 *
 *   mss nop wscale nop nop TS... sackOK eol eol       24 bytes
 *   mss wscale TS... sackOK nop TI_OPEN               20 + 20 bytes
 *
 * No option is left out, changed or moved past another (PROTOCOL.md, section "Room for TI_OPEN").
 */
#ifndef TIFLOW_ROOM_H
#define TIFLOW_ROOM_H

#include "maps.h"
#include "option.h"

/* Of an end-of-list with what follows it: nothing there is read (RFC 9293, section 3.1). */
static __always_inline __u32 room_padding(const struct packet *p, const struct options *o)
{
	return o->end ? sizeof(struct tcphdr) + p->options - o->end : 0;
}

static __always_inline bool room_is_behind(const struct packet *p, const struct options *o)
{
	return p->options + OPTION_OPEN_LENGTH <= OPTIONS_MAX && room_padding(p, o) <= 3;
}

static __always_inline bool room_is_found(const struct packet *p, const struct options *o)
{
	return room_is_behind(p, o) ||
	       (!o->full && o->used + OPTION_OPEN_LENGTH <= OPTIONS_MAX);
}

/* The header has `options` bytes of options now: its length, and those that count it in.  With a
 * partial checksum the TCP length in the pseudo-header is all that the checksum is about.
 */
static __always_inline int room_note(struct __sk_buff *skb, const struct packet *p, __u32 options)
{
	__u32 length = sizeof(struct tcphdr) + options;
	__u32 end = p->l4 + length;
	__be16 old_length = bpf_htons(p->length), new_length = bpf_htons(length);
	__be16 old_word, new_word;
	struct tcphdr tcp = p->tcp;

	old_word = ((__be16 *)&tcp)[6];
	tcp.doff = length / 4;
	new_word = ((__be16 *)&tcp)[6];
	if (bpf_skb_store_bytes(skb, p->l4 + 12, &new_word, 2, 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, old_word, new_word, 2) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, old_length, new_length, BPF_F_PSEUDO_HDR | 2))
		return DROP_REWRITE;
	if (p->ipv6) {
		new_length = bpf_htons(end - p->l3 - sizeof(struct ipv6hdr));
		return bpf_skb_store_bytes(skb, p->l3 + 4, &new_length, 2, 0) ? DROP_REWRITE : 0;
	}
	old_length = bpf_htons(p->l4 + p->length - p->l3);
	new_length = bpf_htons(end - p->l3);
	if (bpf_skb_store_bytes(skb, p->l3 + 2, &new_length, 2, 0) ||
	    bpf_l3_csum_replace(skb, p->l3 + 10, old_length, new_length, 2))
		return DROP_REWRITE;
	return 0;
}

/* Up to three bytes of padding behind the options become NOPs. */
static __always_inline int room_unpad(struct __sk_buff *skb, const struct packet *p, __u32 padding)
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

static __always_inline int room_append(struct __sk_buff *skb, const struct packet *p,
				       const struct options *o, const struct ti_open *option)
{
	__u32 end = p->l4 + sizeof(struct tcphdr) + p->options;
	__u32 padding = room_padding(p, o);
	__s64 sum;

	if (bpf_skb_change_tail(skb, end + sizeof(*option), 0))
		return LEGACY_NO_ROOM;
	if (padding && room_unpad(skb, p, padding))
		return DROP_REWRITE;
	sum = bpf_csum_diff(0, 0, (__be32 *)option, sizeof(*option), 0);
	if (sum < 0 || bpf_skb_store_bytes(skb, end, option, sizeof(*option), 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, 0, sum, 0))
		return DROP_REWRITE;
	return room_note(skb, p, p->options + sizeof(*option));
}

/* Option space before and after, zero behind the options: so sums may be over all of it.  Two words
 * more than there can be, so that reading ahead needs no second look.
 */
#define ROOM_BYTES (OPTIONS_MAX + 8)

/* Where the walk is stands here, not on the stack: what the verifier reads from a map is any number,
 * so one step proves them all.  On the stack it followed each of the 40 bytes, from each caller, and
 * the programs took twice as long to load (egress: 116,000 and 252,000 instructions, Linux 6.18).
 */
struct room {
	__u8 before[ROOM_BYTES];
	__u8 after[ROOM_BYTES];
	__u32 from;
	__u32 to;
	__u32 left; /* of the option that is being copied */
};

_Static_assert(sizeof(struct room) <= sizeof(struct flow), "borrows the scratch memory of a flow");

struct room_walk {
	struct room *room;
	__u32 end;
};

/* One byte.  The list is known to be sound. */
static long room_step(__u32 step __attribute__((unused)), struct room_walk *w)
{
	struct room *room = w->room;
	__u32 from = room->from, to = room->to;
	__u8 byte;

	if (from >= OPTIONS_MAX || from >= w->end || to >= OPTIONS_MAX)
		return 1;
	byte = room->before[from];
	if (!room->left && byte == TCPOPT_END)
		return 1;
	room->from = from + 1;
	if (!room->left && byte == TCPOPT_NOP)
		return 0;
	if (!room->left)
		room->left = room->before[from + 1];
	room->left--;
	room->after[to] = byte;
	room->to = to + 1;
	return 0;
}

/* Not static: so it is verified once, and not with every path to each of its callers (a data plane
 * then took 2.3 s to load, instead of 0.9).
 */
static __noinline int room_squeeze(struct __sk_buff *skb, const struct packet *p,
			    const struct ti_open *option)
{
	__u32 zero = 0, options, to;
	struct room_walk w = {};
	struct room *room;
	__s64 sum;

	if (!p || !option)
		return LEGACY_NO_ROOM;
	options = p->options;
	room = w.room = bpf_map_lookup_elem(&scratch, &zero);
	w.end = options;
	if (!room || options < 4 || options > OPTIONS_MAX)
		return LEGACY_NO_ROOM;
	__builtin_memset(room, 0, sizeof(*room));
	if (bpf_skb_load_bytes(skb, p->l4 + sizeof(struct tcphdr), room->before, options))
		return LEGACY_NO_ROOM;
	bpf_loop(OPTIONS_MAX, room_step, &w, 0);
	to = room->to;
	for (__u32 i = 0; i < 3; i++) {
		if (to & 3 && to < OPTIONS_MAX)
			room->after[to++] = TCPOPT_NOP;
	}
	asm volatile("" : "+r"(to));
	if (to > OPTIONS_MAX - sizeof(*option))
		return LEGACY_NO_ROOM;
	__builtin_memcpy(room->after + to, option, sizeof(*option));
	options = to + sizeof(*option);
	if (bpf_skb_change_tail(skb, p->l4 + sizeof(struct tcphdr) + options, 0))
		return LEGACY_NO_ROOM;
	sum = bpf_csum_diff((__be32 *)room->before, ROOM_BYTES, (__be32 *)room->after, ROOM_BYTES,
			    0);
	if (sum < 0 ||
	    bpf_skb_store_bytes(skb, p->l4 + sizeof(struct tcphdr), room->after, options, 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 16, 0, sum, 0))
		return DROP_REWRITE;
	return room_note(skb, p, options);
}

/* A SYN carries no payload, so the options end where the packet ends.  Returns 0, or a legacy
 * reason with the packet untouched, or DROP_REWRITE.
 */
__noinline int room_take(struct __sk_buff *skb, const struct packet *p,
			 const struct options *o, const struct ti_open *option)
{
	if (!p || !o || !option || p->payload || !room_is_found(p, o))
		return LEGACY_NO_ROOM;
	return room_is_behind(p, o) ? room_append(skb, p, o, option) :
				      room_squeeze(skb, p, option);
}

#endif
