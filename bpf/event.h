/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the daemon is told, and how much of it.  The daemon is slower than a network: whatever anybody
 * can send is told up to a rate, each kind and each sender on its own account.
 */
#ifndef TIFLOW_EVENT_H
#define TIFLOW_EVENT_H

#include "maps.h"

#define SECOND 1000000000ULL

struct budget {
	__u64 rate; /* a second */
	__u64 burst;
};

/* A guest asks for a lease or a router now and then.  A flow is synchronized with a few packets; to
 * check one costs the daemon some 20 us, and who floods a flow of its own pays for it alone.
 */
static __always_inline struct budget budget_of(enum budget_kind kind)
{
	switch (kind) {
	case BUDGET_STRAY:
		return (struct budget){ 200, 200 };
	case BUDGET_FLOW:
	case BUDGET_WIRE:
		return (struct budget){ 1000, 200 };
	case BUDGET_STRANDED:
		return (struct budget){ 1000, 1000 };
	default:
		return (struct budget){ 10, 30 };
	}
}

/* Whether one more may be told (the generic cell rate algorithm, ITU-T I.371: one number, the time
 * until which what has been told is paid for).  Two CPUs may take the same: no harm.
 */
static __noinline bool budget_take(__u32 of, __u32 kind)
{
	struct budget_key key = { .of = of, .kind = kind };
	struct budget b = budget_of(kind);
	__u64 now = bpf_ktime_get_ns(), interval = SECOND / b.rate;
	__u64 *spent = bpf_map_lookup_elem(&budgets, &key);
	__u64 since = spent && *spent > now ? *spent : now;

	if (since > now + (b.burst - 1) * interval) {
		count(COUNT_OVER_BUDGET);
		return false;
	}
	since += interval;
	if (spent)
		*spent = since;
	else
		bpf_map_update_elem(&budgets, &key, &since, BPF_ANY);
	return true;
}

static __always_inline void event_fill(struct event *e, __u32 type, const struct tuple *tuple)
{
	e->type = type;
	e->ifindex = 0;
	e->at = bpf_ktime_get_ns();
	if (tuple)
		e->tuple = *tuple;
	else
		__builtin_memset(&e->tuple, 0, sizeof(e->tuple));
	e->length = 0;
	e->pad = 0;
}

/* Opened and ended flows are told without a wake-up: the daemon reads them with the next event or
 * on its own beat, and a connection's set-up does not pay for a context switch.
 */
static __always_inline void event_flow(__u32 type, const struct tuple *kernel, bool wake)
{
	struct event *e = wake ? bpf_ringbuf_reserve(&events, EVENT_HEAD, 0)
			       : bpf_ringbuf_reserve(&news, EVENT_HEAD, 0);

	if (!e) {
		count(DROP_EVENT_LOST);
		return;
	}
	event_fill(e, type, kernel);
	e->ether_type = 0;
	e->from_guest = 0;
	bpf_ringbuf_submit(e, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* The packet from behind the Ethernet header on, as far as there is room for it. */
static __always_inline void event_copy(struct __sk_buff *skb, struct event *e, __u32 type,
				       const struct tuple *tuple)
{
	__u32 length = skb->len - ETH_HLEN;

	if (!e) {
		count(DROP_EVENT_LOST);
		return;
	}
	if (length > PACKET_MAX)
		length = PACKET_MAX;
	if (length < sizeof(struct iphdr) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, e->packet, length)) {
		bpf_ringbuf_discard(e, 0);
		return;
	}
	event_fill(e, type, tuple);
	e->ifindex = skb->ifindex;
	e->length = length;
	bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}

/* Hands the packet to the daemon; the caller then drops it. */
static __always_inline void event_packet(struct __sk_buff *skb, const struct packet *p, __u32 type,
					 const struct tuple *tuple)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (e) {
		e->ether_type = p->ipv6 ? ETH_P_IPV6 : ETH_P_IP;
		e->from_guest = 0;
	}
	event_copy(skb, e, type, tuple);
}

/* What the daemon answers in a guest's stead, or has asked in its name. */
static __always_inline void event_guest(struct __sk_buff *skb, __u16 ether_type,
					enum budget_kind kind)
{
	struct event *e;

	if (!budget_take(skb->ifindex, kind))
		return;
	e = bpf_ringbuf_reserve(&guests, sizeof(*e), 0);
	if (e) {
		e->ether_type = ether_type;
		e->from_guest = kind == BUDGET_GUEST;
	}
	event_copy(skb, e, EVENT_GUEST, 0);
}

/* A guest's segment of a legacy connection that stayed behind. */
static __always_inline void event_stranded(struct __sk_buff *skb, const struct packet *p)
{
	struct event *e;

	if (!budget_take(skb->ifindex, BUDGET_STRANDED))
		return;
	e = bpf_ringbuf_reserve(&guests, sizeof(*e), 0);
	if (e) {
		e->ether_type = p->ipv6 ? ETH_P_IPV6 : ETH_P_IP;
		e->from_guest = 1;
	}
	event_copy(skb, e, EVENT_STRANDED, &p->tuple);
}

#endif
