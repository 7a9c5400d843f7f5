/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Embryonic flows: a SYN has been answered, and nobody has shown yet to have got the SYN/ACK.  The
 * SYN's source may be made up, and anyone can send many, so there is a bounded number of these
 * beside the others: one more takes the place of the oldest.
 *
 *   SYN/ACK out ──► embryonic ──┬── ACK of it in, or our kernel goes on ──► opened
 *                               ├── the oldest of too many ───────────────► plain TCP (`evicted`)
 *                               `── reset, or silent for long ────────────► forgotten
 */
#ifndef TIFLOW_EMBRYO_H
#define TIFLOW_EMBRYO_H

#include "event.h"

/* Looked at in a full table, which is full of flows that have grown up unless somebody fills it. */
#define EMBRYOS_LOOKED_AT 8

/* Of the oldest `entries` of the queue, forgets the first that is embryonic still; whether there was
 * one.  A call of its own for the sake of the stack.
 */
static __noinline bool embryo_evict(__u32 entries)
{
	struct tuple oldest;
	struct flow *f;

	for (__u32 i = 0; i < EMBRYOS_LOOKED_AT && i < entries; i++) {
		if (bpf_map_pop_elem(&embryos, &oldest))
			return false;
		f = bpf_map_lookup_elem(&flows, &oldest);
		if (!f || !(f->flags & FLOW_EMBRYONIC))
			continue;
		flow_forget(&oldest, f);
		plain_record(&oldest, LEGACY_EVICTED);
		return true;
	}
	return false;
}

static __always_inline void embryo_note(const struct tuple *kernel)
{
	if (!bpf_map_push_elem(&embryos, kernel, 0))
		return;
	embryo_evict(1);
	bpf_map_push_elem(&embryos, kernel, 0);
}

static __always_inline void embryo_grow(struct flow *f, const struct tuple *kernel)
{
	__sync_fetch_and_and(&f->flags, ~FLOW_EMBRYONIC);
	count(COUNT_FLOW_OPENED);
	event_flow(EVENT_OPENED, kernel, false);
}

/* Who acknowledges our ISN has seen it.  Returns whether the flow is open. */
static __always_inline bool embryo_in(struct flow *f, const struct tuple *kernel, seq ack)
{
	if (ack != f->iss + 1)
		return false;
	embryo_grow(f, kernel);
	return true;
}

/* A kernel that has data, FIN or an ACK of data to send has taken the third ACK.  It also says by
 * which of its SYN/ACKs: with SYN cookies each may have another ISN, and the last is not always the
 * one that was acknowledged.  Any other ACK may be about a segment that it has refused.
 */
static __always_inline void embryo_out(struct flow *f, const struct packet *p,
				       const struct tuple *kernel)
{
	seq ack = bpf_ntohl(p->tcp.ack_seq);

	if (!p->payload && !(p->flags & TCP_FIN) && ack == f->irs + 1)
		return;
	f->iss = bpf_ntohl(p->tcp.seq) - 1;
	f->snd_una = f->snd_nxt = f->iss + 1;
	f->rcv_max = ack;
	embryo_grow(f, kernel);
}

#endif
