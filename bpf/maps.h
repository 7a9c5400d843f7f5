/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps, and the few things that every part does with them.  All are pinned: they outlive the
 * daemon.  Every one is bounded; what evicts by age (LRU) costs a connection its protection, never
 * its packets.
 */
#ifndef TIFLOW_MAPS_H
#define TIFLOW_MAPS_H

#include <linux/pkt_cls.h>
#include "packet.h"

#define MAP(name, kind, key_type, value_type, entries)                                             \
	struct {                                                                                   \
		__uint(type, kind);                                                                \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
		__uint(max_entries, entries);                                                      \
	} name SEC(".maps")

MAP(flows, BPF_MAP_TYPE_HASH, struct tuple, struct flow, FLOWS_MAX); /* by kernel tuple */
MAP(wires, BPF_MAP_TYPE_HASH, struct tuple, struct wire, 2 * FLOWS_MAX); /* former ones, too */
MAP(tifids, BPF_MAP_TYPE_HASH, __be32, struct tuple, FLOWS_MAX);     /* our half: kernel tuple */
MAP(half_open, BPF_MAP_TYPE_LRU_HASH, struct tuple, struct half_open, HALF_OPEN_MAX);
MAP(plain, BPF_MAP_TYPE_LRU_HASH, struct tuple, struct plain, PLAIN_MAX);
MAP(plain_peers, BPF_MAP_TYPE_LRU_HASH, struct address, struct plain_peer, PLAIN_PEERS_MAX);
MAP(places, BPF_MAP_TYPE_HASH, __u32, struct place, TAPS_MAX);       /* by ifindex of the tap */
MAP(budgets, BPF_MAP_TYPE_LRU_HASH, struct budget_key, __u64, BUDGETS_MAX); /* ns: spent until */
MAP(settings, BPF_MAP_TYPE_ARRAY, __u32, struct settings, 1);
MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, REASON_END);
MAP(scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct flow, 1); /* too large for the stack */

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__type(value, struct half);
	__uint(max_entries, HALVES_MAX);
} halves SEC(".maps");

/* The kernel tuples of embryonic flows, the oldest first; and of some that have grown up since. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__type(value, struct tuple);
	__uint(max_entries, EMBRYOS_MAX);
} embryos SEC(".maps");

#define RING(name)                                                                                 \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                \
		__uint(max_entries, EVENT_BYTES);                                                  \
	} name SEC(".maps")

/* What a flow needs now; connections that come and go; frames of guests and for them.  None of them
 * can take the room of another.
 */
RING(events);
RING(news);
RING(guests);

/* Not ours: whatever else is attached behind us decides. */
#define PASS TC_ACT_UNSPEC

static __always_inline void count(__u32 reason)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &reason);

	if (counter)
		*counter += 1;
}

static __always_inline int drop(__u32 reason)
{
	count(reason);
	return TC_ACT_SHOT;
}

/* Unlike a drop this looks like success to the sender's TCP, which then backs off as on a dead
 * path; a local drop would make it try again every 500 ms, and RFC 6069's ICMP, our kick, works
 * only on a sender that has backed off (test/kernel/held.test.ts).
 */
static __always_inline int swallow(__u32 reason)
{
	count(reason);
	return TC_ACT_STOLEN;
}

static __always_inline struct settings *settings_read(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&settings, &key);
}

static __always_inline struct mapping *flow_mapping(struct flow *f)
{
	__u32 active = f->active;

	if (!active)
		return 0;
	return active == 1 ? &f->mapping[0] : &f->mapping[1];
}

/* Reset, or all that either end had to say is acknowledged, both FINs as well.  Until then it is
 * like any other flow: a half-closed one may still have to carry everything.
 */
static __always_inline bool flow_is_over(const struct flow *f)
{
	const __u32 fins = FLOW_FIN_SENT | FLOW_FIN_RECEIVED;

	return f->flags & FLOW_RESET || ((f->flags & fins) == fins && f->snd_una == f->snd_nxt);
}

static __always_inline __be32 flow_local_half(const struct flow *f)
{
	return f->role == ROLE_INITIATOR ? f->initiator.tifid_half : f->responder.tifid_half;
}

static __always_inline void plain_record(const struct tuple *t, __u16 reason)
{
	struct plain value = { .since = bpf_ktime_get_ns(), .reason = reason };

	count(reason);
	bpf_map_update_elem(&plain, t, &value, BPF_ANY);
}

static __always_inline void flow_forget(const struct tuple *kernel, struct flow *f)
{
	struct mapping *m = flow_mapping(f);
	__be32 half = flow_local_half(f);

	if (m)
		bpf_map_delete_elem(&wires, &m->wire);
	bpf_map_delete_elem(&tifids, &half);
	bpf_map_delete_elem(&flows, kernel);
}

#endif
