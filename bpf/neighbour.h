/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ARP (RFC 826) and neighbour discovery (RFC 4861) of a VM: answered here in both directions while
 * it is away.  The network asks for an outside address that the guest does not know, perhaps
 * before it runs; the guest asks for its old gateway and old neighbours, which are elsewhere.
 *
 * A question becomes its own answer and goes back by where it came from.  Not inlined: their stacks
 * would add up to more than the 512 bytes that a program has.
 */
#ifndef TIFLOW_NEIGHBOUR_H
#define TIFLOW_NEIGHBOUR_H

#include "event.h"
#include "place.h"

#define ARP_REQUEST 1
#define ARP_REPLY 2

struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
} __attribute__((packed));

#define ND_ROUTER_SOLICITATION 133
#define ND_ROUTER_ADVERTISEMENT 134
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_REDIRECT 137
#define ND_HOP_LIMIT 255
#define ND_TARGET_LINK_LAYER 2
#define ICMP4_REDIRECT 5

/* The part that both have; an answer has an option behind it. */
struct nd {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct address target;
	__u8 option;
	__u8 option_length; /* in units of 8 bytes */
	__u8 mac[ETH_ALEN];
};

#define ND_SOLICITED 0x40000000
#define ND_OVERRIDE 0x20000000
#define ND_ROUTER 0x80000000

static __always_inline __be32 arp_ip4(const __u8 *bytes)
{
	__be32 ip;

	__builtin_memcpy(&ip, bytes, sizeof(ip));
	return ip;
}

static __always_inline bool arp_load(struct __sk_buff *skb, struct arp *a)
{
	return !bpf_skb_load_bytes(skb, ETH_HLEN, a, sizeof(*a)) &&
	       a->hardware == bpf_htons(1) && a->protocol == bpf_htons(ETH_P_IP) &&
	       a->hardware_length == ETH_ALEN && a->protocol_length == 4;
}

/* The frame goes back to who sent it, from `mac`. */
static __always_inline int frame_turn(struct __sk_buff *skb, const __u8 *mac)
{
	__u8 ends[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, ETH_ALEN, ends, ETH_ALEN))
		return -1;
	__builtin_memcpy(ends + ETH_ALEN, mac, ETH_ALEN);
	return bpf_skb_store_bytes(skb, 0, ends, sizeof(ends), 0);
}

/* `arrived`: the direction in which the question came.  Marked, so that it passes as it is. */
static __always_inline int send_back(struct __sk_buff *skb, enum direction arrived)
{
	struct settings *s = settings_read();

	if (!s)
		return drop(DROP_REWRITE);
	count(COUNT_ANSWERED);
	skb->mark = arrived == OUT ? s->mark_guest : s->mark_network;
	return bpf_redirect(skb->ifindex, arrived == OUT ? 0 : BPF_F_INGRESS);
}

/* "The target is at `mac`." */
static __always_inline int arp_answer(struct __sk_buff *skb, struct arp *a, const __u8 *mac,
				      enum direction arrived)
{
	__u8 asker[4];

	if (!mac_is_known(mac))
		return drop(DROP_NO_NEXT_HOP);
	__builtin_memcpy(asker, a->sender, 4);
	__builtin_memcpy(a->target_mac, a->sender_mac, ETH_ALEN);
	__builtin_memcpy(a->sender, a->target, 4);
	__builtin_memcpy(a->target, asker, 4);
	__builtin_memcpy(a->sender_mac, mac, ETH_ALEN);
	a->operation = bpf_htons(ARP_REPLY);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, a, sizeof(*a), 0) || frame_turn(skb, mac))
		return drop(DROP_REWRITE);
	return send_back(skb, arrived);
}

/* A guest that is at home tells its address by what it asks. */
static __noinline int arp_from_guest(struct __sk_buff *skb, struct place *place)
{
	__u8 mac[ETH_ALEN];
	struct arp a;
	__be32 sender;

	if (!arp_load(skb, &a))
		return PASS;
	sender = arp_ip4(a.sender);
	if (!place_is_away(place)) {
		if (sender && !address_ip4(&place->inside4)) {
			address_map4(&place->inside4, sender);
			address_map4(&place->outside4, sender);
		}
		return PASS;
	}
	if (a.operation != bpf_htons(ARP_REQUEST) || !sender ||
	    arp_ip4(a.target) == address_ip4(&place->inside4))
		return drop(DROP_FOREIGN); /* an answer or a claim, about an address of another network */
	__builtin_memcpy(mac, place->gateway4_mac, sizeof(mac));
	return arp_answer(skb, &a, mac, OUT);
}

static __noinline int arp_from_network(struct __sk_buff *skb, const struct place *place)
{
	__u8 mac[ETH_ALEN];
	struct arp a;

	if (!arp_load(skb, &a))
		return PASS;
	__builtin_memcpy(mac, place->guest_mac, sizeof(mac));
	if (place->flags & PLACE_ANSWER && place_has(place, false) &&
	    a.operation == bpf_htons(ARP_REQUEST) &&
	    arp_ip4(a.target) == address_ip4(&place->outside4) &&
	    arp_ip4(a.sender) != address_ip4(&place->outside4))
		return arp_answer(skb, &a, mac, IN);
	if (!place_is_away(place))
		return PASS;
	/* What the daemon has asked for, or what contradicts what it knows. */
	if (a.operation == bpf_htons(ARP_REPLY) || arp_ip4(a.sender) == arp_ip4(a.target))
		event_guest(skb, ETH_P_ARP, BUDGET_LAN);
	return drop(DROP_FOREIGN);
}

/* Whoever asks from :: is about to take the address (RFC 4862, section 5.4): all are told, as RFC
 * 4861, section 7.2.4 has it.  The frame is turned already.
 */
static __always_inline int nd_turn_to_all(struct __sk_buff *skb)
{
	const __u8 all_nodes[ETH_ALEN] = { 0x33, 0x33, 0, 0, 0, 1 }; /* RFC 2464, section 7 */

	return bpf_skb_store_bytes(skb, 0, all_nodes, sizeof(all_nodes), 0);
}

/* Changes the solicitation at p->l4 into its advertisement; RFC 4861, section 7.2.4.  One without
 * the asker's hardware address is answered without ours: it has that then, or only wants to know
 * whether there is one.
 */
static __always_inline int nd_answer(struct __sk_buff *skb, const struct packet *p, struct nd *nd,
				     const __u8 *mac, __be32 flags, enum direction arrived)
{
	__u32 length = p->length >= sizeof(*nd) ? sizeof(*nd) : sizeof(*nd) - 8;
	struct { struct address source, target; } ends;
	struct { __be32 length; __be32 next; } tail = {
		bpf_htonl(length), bpf_htonl(IPPROTO_ICMPV6),
	};
	bool to_all;
	__s64 sum;

	if (!mac_is_known(mac))
		return drop(DROP_NO_NEXT_HOP);
	if (p->length != length)
		return drop(DROP_FOREIGN);
	nd->type = ND_ADVERTISEMENT;
	nd->checksum = 0;
	nd->flags = flags;
	if (length == sizeof(*nd)) {
		nd->option = ND_TARGET_LINK_LAYER;
		nd->option_length = 1;
		__builtin_memcpy(nd->mac, mac, ETH_ALEN);
	}
	ends.source = nd->target;
	ends.target = arrived == OUT ? p->tuple.local : p->tuple.remote;
	to_all = !address_prefix(&ends.target);
	if (to_all) {
		ends.target = (struct address){ .byte = { 0xff, 2, [15] = 1 } };
		nd->flags &= ~bpf_htonl(ND_SOLICITED);
	}
	sum = bpf_csum_diff(0, 0, (__be32 *)&ends, sizeof(ends), 0);
	sum = bpf_csum_diff(0, 0, (__be32 *)&tail, sizeof(tail), sum);
	sum = bpf_csum_diff(0, 0, (__be32 *)nd, sizeof(*nd), sum);
	nd->checksum = checksum_fold(sum);
	if (bpf_skb_store_bytes(skb, p->l3 + 8, &ends, sizeof(ends), 0) ||
	    bpf_skb_store_bytes(skb, p->l4, nd, sizeof(*nd) - 8, 0) ||
	    (length == sizeof(*nd) &&
	     bpf_skb_store_bytes(skb, p->l4 + sizeof(*nd) - 8, &nd->option, 8, 0)) ||
	    frame_turn(skb, mac) || (to_all && nd_turn_to_all(skb)))
		return drop(DROP_REWRITE);
	return send_back(skb, arrived);
}

/* Up to the target, which is :: where there is none. */
static __always_inline bool nd_load(struct __sk_buff *skb, const struct packet *p, struct nd *nd)
{
	__builtin_memset(nd, 0, sizeof(*nd));
	if (p->transport != IPPROTO_ICMPV6)
		return false;
	if (p->length < sizeof(*nd) - 8 || bpf_skb_load_bytes(skb, p->l4, nd, sizeof(*nd) - 8))
		bpf_skb_load_bytes(skb, p->l4, &nd->type, 1);
	return nd->type >= ND_ROUTER_SOLICITATION && nd->type <= ND_REDIRECT;
}

/* RFC 4861, sections 6.1 and 7.1: what a router may have forwarded nobody heeds; nor what comes in
 * fragments (RFC 6980, section 5).
 */
static __always_inline bool nd_is_of_link(struct __sk_buff *skb, const struct packet *p)
{
	__u8 hop_limit;

	return !p->fragment &&
	       !bpf_skb_load_bytes(skb, p->l3 + offsetof(struct ipv6hdr, hop_limit), &hop_limit, 1) &&
	       hop_limit == ND_HOP_LIMIT;
}

/* PASS: not neighbour discovery, or of the link only, where addresses are not translated. */
static __noinline int nd_from_guest(struct __sk_buff *skb, const struct packet *p,
					 const struct place *place)
{
	struct nd nd;
	bool router;

	if (!nd_load(skb, p, &nd))
		return PASS;
	if (!nd_is_of_link(skb, p))
		return drop(DROP_FOREIGN);
	router = address_equal(&nd.target, &place->router6);
	if ((nd.type == ND_SOLICITATION || nd.type == ND_ADVERTISEMENT) &&
	    address_is_link_local(&nd.target) && !router)
		return PASS;
	if (nd.type == ND_ROUTER_SOLICITATION)
		event_guest(skb, ETH_P_IPV6, BUDGET_GUEST);
	if (nd.type == ND_SOLICITATION && address_prefix(&p->tuple.local))
		return nd_answer(skb, p, &nd, place->gateway6_mac,
				 bpf_htonl(ND_SOLICITED | ND_OVERRIDE | (router ? ND_ROUTER : 0)),
				 OUT);
	return drop(DROP_FOREIGN);
}

/* A foreign router tells of a better way: to whom the guest does not know. */
static __always_inline bool icmp4_is_redirect(struct __sk_buff *skb, const struct packet *p)
{
	__u8 type;

	return p->transport == IPPROTO_ICMP && !bpf_skb_load_bytes(skb, p->l4, &type, 1) &&
	       type == ICMP4_REDIRECT;
}

/* PASS: not for us to judge. */
static __noinline int nd_from_network(struct __sk_buff *skb, const struct packet *p,
					   const struct place *place)
{
	struct nd nd;

	if (!nd_load(skb, p, &nd))
		return PASS;
	if (!nd_is_of_link(skb, p))
		return place_is_away(place) ? drop(DROP_FOREIGN) : PASS;
	if (place->flags & PLACE_ANSWER && nd.type == ND_SOLICITATION &&
	    place_owns6(place, &nd.target))
		return nd_answer(skb, p, &nd, place->guest_mac,
				 bpf_htonl(ND_SOLICITED | ND_OVERRIDE), IN);
	if (nd.type == ND_ROUTER_ADVERTISEMENT || (nd.type == ND_ADVERTISEMENT && place_is_away(place)))
		event_guest(skb, ETH_P_IPV6, BUDGET_LAN);
	if (!place_is_away(place))
		return PASS;
	/* The guest's own questions about the link are answered by the link. */
	if ((nd.type == ND_SOLICITATION && address_is_link_local(&nd.target)) ||
	    (nd.type == ND_ADVERTISEMENT && address_is_link_local(&p->tuple.local)))
		return PASS;
	return drop(DROP_FOREIGN);
}

#endif
