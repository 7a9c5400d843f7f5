/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The place of a VM: between what its guest believes its addresses to be and what they are where it
 * is now.  A layer of its own below the boundary, which knows inside addresses only, so that a flow
 * that has moved, one that began here, UDP and ICMP all pass here alike, by a constant.
 *
 *   guest ── boundary ── place ── bridge            inside: 192.0.2.10   outside: 198.51.100.10
 *
 * Either succeeds as a whole or returns a drop reason.
 */
#ifndef TIFLOW_PLACE_H
#define TIFLOW_PLACE_H

#include "maps.h"
#include "rewrite.h"

#define TCP_CHECK 16
#define UDP_CHECK 6
#define ICMP6_CHECK 2

static __always_inline struct place *place_of(__u32 tap)
{
	return bpf_map_lookup_elem(&places, &tap);
}

static __always_inline bool place_is_away(const struct place *place)
{
	return place && place->flags & PLACE_AWAY;
}

static __always_inline __u64 address_prefix(const struct address *a)
{
	return ((const __u64 *)a->byte)[0];
}

static __always_inline __u64 address_identifier(const struct address *a)
{
	return ((const __u64 *)a->byte)[1];
}

static __always_inline bool address_is_link_local(const struct address *a)
{
	return a->byte[0] == 0xfe && (a->byte[1] & 0xc0) == 0x80;
}

/* Whether `a` is one of the guest's by this name of its network: IPv4 the address, IPv6 the prefix. */
static __always_inline bool place_names(const struct address *name4, const struct address *name6,
					const struct address *a, bool ipv6)
{
	if (ipv6)
		return address_prefix(name6) && address_prefix(name6) == address_prefix(a);
	return address_ip4(name4) && address_ip4(name4) == address_ip4(a);
}

static __always_inline bool place_is_inside(const struct place *place, const struct address *a,
					    bool ipv6)
{
	return place_names(&place->inside4, &place->inside6, a, ipv6);
}

static __always_inline bool place_is_outside(const struct place *place, const struct address *a,
					     bool ipv6)
{
	return place_names(&place->outside4, &place->outside6, a, ipv6);
}

/* Whether there is a name for the guest at this place, in this family. */
static __always_inline bool place_has(const struct place *place, bool ipv6)
{
	return ipv6 ? !!address_prefix(&place->outside6) : !!address_ip4(&place->outside4);
}

/* Where in the transport header the checksum over the pseudo-header is; 0: there is none, or it is
 * in another fragment.
 */
static __always_inline __u32 place_checksum_of(const struct packet *p)
{
	switch (p->transport) {
	case IPPROTO_TCP:
		return TCP_CHECK;
	case IPPROTO_UDP:
		return UDP_CHECK;
	case IPPROTO_ICMPV6:
		return ICMP6_CHECK;
	}
	return 0;
}

/* What changes of an address: all of IPv4, the first half of IPv6. */
struct place_change {
	__be32 old[2];
	__be32 new[2];
};

static __always_inline void place_change_of(struct place_change *c, const struct place *place,
					    bool ipv6, enum direction direction)
{
	const struct address *inside = ipv6 ? &place->inside6 : &place->inside4;
	const struct address *outside = ipv6 ? &place->outside6 : &place->outside4;
	const __u32 *from = (const __u32 *)(direction == OUT ? inside : outside)->byte;
	const __u32 *to = (const __u32 *)(direction == OUT ? outside : inside)->byte;

	c->old[0] = ipv6 ? from[0] : from[3];
	c->old[1] = ipv6 ? from[1] : 0;
	c->new[0] = ipv6 ? to[0] : to[3];
	c->new[1] = ipv6 ? to[1] : 0;
}

/* Stores it in the IP header at `l3`, with the header checksum of IPv4.  `source`: which of the two
 * addresses.  Returns what that adds to a sum over the addresses; negative: failed.
 */
static __always_inline __s64 place_store(struct __sk_buff *skb, bool ipv6, __u32 l3, bool source,
					 struct place_change *c)
{
	__s64 sum = bpf_csum_diff(c->old, sizeof(c->old), c->new, sizeof(c->new), 0);
	__u32 at;

	if (ipv6) {
		at = l3 + (source ? 8 : 24);
		return sum < 0 || bpf_skb_store_bytes(skb, at, c->new, 8, 0) ? -1 : sum;
	}
	at = l3 + (source ? 12 : 16);
	if (sum < 0 || bpf_skb_store_bytes(skb, at, c->new, 4, 0) ||
	    bpf_l3_csum_replace(skb, l3 + 10, 0, sum, 0))
		return -1;
	return sum;
}

/* The packet that an ICMP error quotes went the other way, so the guest is at its other end.  The
 * header checksum of a quoted IPv4 header makes up for its address; ICMPv6 has to be told.
 */
static __always_inline int place_rewrite_quoted(struct __sk_buff *skb, const struct packet *p,
						const struct place *place, enum direction direction)
{
	__u32 l3 = p->l4 + ICMP_HEADER;
	__u32 at = l3 + (p->ipv6 ? (direction == OUT ? 24 : 8) : (direction == OUT ? 16 : 12));
	struct address a = {};
	struct place_change c;
	__s64 sum;
	__u8 type;

	if (bpf_skb_load_bytes(skb, p->l4, &type, 1) || !icmp_is_error(type, p->ipv6))
		return 0;
	if (p->length < ICMP_HEADER + (p->ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)))
		return 0; /* too short to quote anything */
	if (p->ipv6 ? bpf_skb_load_bytes(skb, at, &a, 16)
		    : bpf_skb_load_bytes(skb, at, &a.byte[12], 4))
		return DROP_REWRITE;
	if (direction == OUT ? !place_is_inside(place, &a, p->ipv6)
			     : !place_is_outside(place, &a, p->ipv6))
		return 0;
	place_change_of(&c, place, p->ipv6, direction);
	sum = place_store(skb, p->ipv6, l3, direction == IN, &c);
	if (sum < 0)
		return DROP_REWRITE;
	if (p->ipv6 && bpf_l4_csum_replace(skb, p->l4 + ICMP6_CHECK, 0, sum, 0))
		return DROP_REWRITE;
	return 0;
}

/* Between inside and outside.  Returns 0 or a drop reason. */
static __noinline int place_rewrite(struct __sk_buff *skb, const struct packet *p,
					 const struct place *place, enum direction direction)
{
	bool icmp = p->transport == (p->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	__u32 check = place_checksum_of(p);
	struct place_change c;
	__s64 sum;

	/* A fragment so small that its checksum is in the next one (RFC 1858), or a header that lies. */
	if (check && check + 2 > p->length)
		return DROP_MALFORMED;
	if (icmp && place_rewrite_quoted(skb, p, place, direction))
		return DROP_REWRITE;
	place_change_of(&c, place, p->ipv6, direction);
	sum = place_store(skb, p->ipv6, p->l3, direction == OUT, &c);
	if (sum < 0 || (check && checksum_replace_addresses(skb, p, p->l4 + check, sum)))
		return DROP_REWRITE;
	return 0;
}

static __always_inline bool mac_is_known(const __u8 *mac)
{
	return mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5];
}

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	for (int i = 0; i < ETH_ALEN; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* The guest sends to the gateway of another network, or to hosts that it takes for its
 * neighbours; all that goes by this place's gateway.  Returns 0 or a drop reason.
 */
static __always_inline int place_next_hop(struct __sk_buff *skb, const struct place *place,
					  bool ipv6)
{
	const __u8 *gateway = ipv6 ? place->gateway6_mac : place->gateway4_mac;
	__u8 mac[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, mac, sizeof(mac)))
		return DROP_REWRITE;
	if (mac[0] & 1)
		return 0; /* to many */
	__builtin_memcpy(mac, gateway, sizeof(mac));
	if (!mac_is_known(mac))
		return DROP_NO_NEXT_HOP;
	return bpf_skb_store_bytes(skb, 0, mac, sizeof(mac), 0) ? DROP_REWRITE : 0;
}

/* Which IPv6 addresses the guest uses: those that are answered for, and no other of its prefix. */
static __always_inline void place_learn6(struct place *place, const struct address *a)
{
	__u32 i;

	if (address_is_link_local(a) || a->byte[0] == 0xff || !address_prefix(a))
		return;
	if (address_prefix(&place->inside6) && !place_is_inside(place, a, true))
		return;
	for (i = 0; i < GUEST_ADDRESSES; i++)
		if (address_equal(&place->own6[i], a))
			return;
	i = place->own6_next & (GUEST_ADDRESSES - 1);
	place->own6[i] = *a;
	place->own6_next = i + 1;
}

/* Whether the guest has this outside address. */
static __always_inline bool place_owns6(const struct place *place, const struct address *outside)
{
	if (!place_is_outside(place, outside, true))
		return false;
	for (__u32 i = 0; i < GUEST_ADDRESSES; i++)
		if (address_prefix(&place->own6[i]) == address_prefix(&place->inside6) &&
		    address_identifier(&place->own6[i]) == address_identifier(outside))
			return true;
	return false;
}

#endif
