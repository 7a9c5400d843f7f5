/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From sk_buff to what the boundary needs to know of a packet.  Reads only.
 *
 * A packet that is no TCP, or whose lengths lie, is none of ours: the kernel behind us, or the
 * next host, judges it.  Headers are copied to the stack: bpf_skb_load_bytes also reads what is
 * not linear, and a program without direct writes costs an untouched packet no unsharing.
 */
#ifndef TIFLOW_PACKET_H
#define TIFLOW_PACKET_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define IP_MORE_FRAGMENTS 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff
#define IP6_MORE_FRAGMENTS 1
#define IP6_FRAGMENT_OFFSET 0xfff8

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum direction { OUT, IN };

struct packet {
	struct tuple tuple; /* local first: the source of what goes out */
	struct tcphdr tcp;  /* as it is in the packet; zero for ICMP */
	__u32 l3;           /* offsets from the start of the sk_buff's data */
	__u32 l4;
	__u32 length;       /* from the transport header to the end, without link-layer padding */
	__u32 payload;      /* of TCP */
	__u32 options;      /* bytes of TCP options */
	__u8 protocol;      /* IPPROTO_TCP, IPPROTO_ICMP, IPPROTO_ICMPV6, or 0: not for us */
	__u8 flags;         /* TCP's flag byte */
	__u8 ipv6;
	__u8 fragment;      /* the first of several; later ones have no ports: protocol is 0 */
	__u8 ip;            /* an IP packet whose lengths are right, if all else is 0 */
	__u8 transport;     /* whatever it is; 0: none, or in another fragment */
	__u8 forwarded;     /* another host has sent it; only seen on its way out */
	__u8 gateway;       /* this is an uplink of a gateway */
};

static __always_inline void address_map4(struct address *a, __be32 ip)
{
	__u32 *word = (__u32 *)a->byte;

	word[0] = 0;
	word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = ip;
}

static __always_inline __be32 address_ip4(const struct address *a)
{
	return ((const __u32 *)a->byte)[3];
}

static __always_inline bool address_equal(const struct address *a, const struct address *b)
{
	const __u64 *x = (const __u64 *)a->byte, *y = (const __u64 *)b->byte;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline bool tuple_equal(const struct tuple *a, const struct tuple *b)
{
	return address_equal(&a->local, &b->local) && address_equal(&a->remote, &b->remote) &&
	       a->local_port == b->local_port && a->remote_port == b->remote_port;
}

/* RFC 4291, section 2.5.5.2: on the wire it has no business, and here it names IPv4. */
static __always_inline bool address_is_mapped(const struct address *a)
{
	const __u32 *word = (const __u32 *)a->byte;

	return !word[0] && !word[1] && word[2] == bpf_htonl(0xffff);
}

static __always_inline void packet_addresses4(struct tuple *t, const struct iphdr *ip,
					      enum direction direction)
{
	address_map4(direction == OUT ? &t->local : &t->remote, ip->saddr);
	address_map4(direction == OUT ? &t->remote : &t->local, ip->daddr);
}

static __always_inline void packet_addresses6(struct tuple *t, const struct ipv6hdr *ip,
					      enum direction direction)
{
	struct address *source = direction == OUT ? &t->local : &t->remote;
	struct address *target = direction == OUT ? &t->remote : &t->local;

	__builtin_memcpy(source, &ip->saddr, sizeof(*source));
	__builtin_memcpy(target, &ip->daddr, sizeof(*target));
}

static __always_inline void packet_ports(struct tuple *t, __be16 source, __be16 target,
					 enum direction direction)
{
	t->local_port = direction == OUT ? source : target;
	t->remote_port = direction == OUT ? target : source;
}

/* RFC 791.  Total length 0 is what the kernel writes for GSO packets over 64 KiB (BIG TCP). */
static __always_inline int packet_parse4(struct __sk_buff *skb, struct packet *p,
					 enum direction direction)
{
	struct iphdr ip;
	__u32 header, total;

	if (bpf_skb_load_bytes(skb, p->l3, &ip, sizeof(ip)) || ip.version != 4)
		return -1;
	header = ip.ihl * 4;
	total = bpf_ntohs(ip.tot_len);
	if (!total)
		total = skb->len - p->l3;
	if (header < sizeof(ip) || total < header || total > skb->len - p->l3)
		return -1;
	p->ip = 1;
	packet_addresses4(&p->tuple, &ip, direction);
	if (ip.frag_off & bpf_htons(IP_FRAGMENT_OFFSET))
		return 0;
	p->fragment = !!(ip.frag_off & bpf_htons(IP_MORE_FRAGMENTS));
	p->l4 = p->l3 + header;
	p->length = total - header;
	p->transport = ip.protocol;
	p->protocol = ip.protocol == IPPROTO_TCP || ip.protocol == IPPROTO_ICMP ? ip.protocol : 0;
	return 0;
}

struct extension {
	__u8 next;
	__u8 length; /* in units of 8 bytes, beyond the first; reserved in a fragment header */
	__be16 fragment;
};

/* RFC 8200.  Returns the transport protocol and moves *l4 behind the extension headers; 0 where
 * the packet is a later fragment; negative: they are too many, or cut off.
 */
static __always_inline int packet_extensions(struct __sk_buff *skb, __u8 next, __u32 *l4,
					      __u8 *fragment)
{
	struct extension e;

	/* Unrolled for Linux before 6.8: "back-edge from insn 110 to 111", because clang lets the
	 * end of the body fall through to the head, and there only a jump may go back.
	 */
#pragma clang loop unroll(full)
	for (int i = 0; i <= EXTENSION_HEADERS_MAX; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT)
			return next;
		if (i == EXTENSION_HEADERS_MAX || bpf_skb_load_bytes(skb, *l4, &e, sizeof(e)))
			return -1;
		if (next == IPPROTO_FRAGMENT) {
			if (e.fragment & bpf_htons(IP6_FRAGMENT_OFFSET))
				return 0;
			*fragment = !!(e.fragment & bpf_htons(IP6_MORE_FRAGMENTS));
			*l4 += 8;
		} else {
			*l4 += 8 + e.length * 8;
		}
		next = e.next;
	}
	return -1;
}

static __always_inline int packet_parse6(struct __sk_buff *skb, struct packet *p,
					 enum direction direction)
{
	struct ipv6hdr ip;
	__u32 total;
	int next;

	if (bpf_skb_load_bytes(skb, p->l3, &ip, sizeof(ip)) || ip.version != 6)
		return -1;
	total = bpf_ntohs(ip.payload_len);
	total = total ? total + sizeof(ip) : skb->len - p->l3;
	p->l4 = p->l3 + sizeof(ip);
	next = packet_extensions(skb, ip.nexthdr, &p->l4, &p->fragment);
	if (next < 0 || total > skb->len - p->l3 || total < p->l4 - p->l3)
		return -1;
	p->ipv6 = 1;
	p->length = total - (p->l4 - p->l3);
	p->transport = next;
	p->protocol = next == IPPROTO_TCP || next == IPPROTO_ICMPV6 ? next : 0;
	packet_addresses6(&p->tuple, &ip, direction);
	p->ip = !address_is_mapped(&p->tuple.local) && !address_is_mapped(&p->tuple.remote);
	return p->ip ? 0 : -1;
}

/* RFC 9293, section 3.1. */
static __always_inline int packet_parse_tcp(struct __sk_buff *skb, struct packet *p,
					    enum direction direction)
{
	__u32 header;

	if (bpf_skb_load_bytes(skb, p->l4, &p->tcp, sizeof(p->tcp)))
		return -1;
	header = p->tcp.doff * 4;
	if (header < sizeof(p->tcp) || header > p->length)
		return -1;
	p->flags = ((const __u8 *)&p->tcp)[13];
	p->options = header - sizeof(p->tcp);
	p->payload = p->length - header;
	packet_ports(&p->tuple, p->tcp.source, p->tcp.dest, direction);
	return 0;
}

/* Fills *p; p->protocol is 0 where there is nothing for the boundary. */
static __always_inline void packet_parse(struct __sk_buff *skb, struct packet *p,
					 enum direction direction)
{
	int failed = -1;

	__builtin_memset(p, 0, sizeof(*p));
	p->l3 = ETH_HLEN;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		failed = packet_parse4(skb, p, direction);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		failed = packet_parse6(skb, p, direction);
	if (!failed && p->protocol == IPPROTO_TCP)
		failed = packet_parse_tcp(skb, p, direction);
	if (failed)
		p->protocol = 0;
}

static __always_inline __s32 seq_diff(seq a, seq b)
{
	return (__s32)(a - b);
}

/* The end of a segment: SYN and FIN count as one each (RFC 9293, section 3.4). */
static __always_inline seq packet_end(const struct packet *p)
{
	return bpf_ntohl(p->tcp.seq) + p->payload + !!(p->flags & TCP_SYN) +
	       !!(p->flags & TCP_FIN);
}

#endif
