/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whether a flow's kernel takes what comes in for it.  A packet that has been counted here may still
 * be lost behind us: to a rule that writes another mark, a policy rule that is gone, a firewall, or
 * a second boundary.  The flow would look well and be dead.
 *
 *   new data comes in, three times in a second or more, and no ACK of it, not even of the old
 *   number, leaves ──────────────────────────────────────────────────────────────────────────┐
 *   its kernel sends again what the peer has acknowledged, three times in a second or more ──┴► stuck
 *
 * A kernel that has a hole to fill, or no room, says so with an ACK: that is not stuck.
 */
#ifndef TIFLOW_TAKEN_H
#define TIFLOW_TAKEN_H

#include "event.h"

#define STUCK_TIMES 3
#define STUCK_NS 1000000000ULL

static __always_inline void taken_not(struct flow *f, const struct tuple *kernel)
{
	if (f->flags & (FLOW_STUCK | FLOW_HELD))
		return;
	__sync_fetch_and_or(&f->flags, FLOW_STUCK);
	event_flow(EVENT_STUCK, kernel, true);
}

static __always_inline void taken_again(struct flow *f, const struct tuple *kernel)
{
	if (!(f->flags & FLOW_STUCK))
		return;
	__sync_fetch_and_and(&f->flags, ~FLOW_STUCK);
	event_flow(EVENT_REVIVED, kernel, true);
}

/* An ACK of more than before, or one alone at the end of what was sent: a keepalive lies one below
 * SND.UNA, and retransmissions carry data.
 */
static __always_inline bool taken_is_told(const struct flow *f, const struct packet *p)
{
	if (!(p->flags & TCP_ACK))
		return false;
	if (seq_diff(bpf_ntohl(p->tcp.ack_seq), f->rcv_nxt) > 0)
		return true;
	return !p->payload && seq_diff(bpf_ntohl(p->tcp.seq), f->snd_una) >= 0;
}

static __always_inline bool taken_is_owed(const struct flow *f)
{
	return f->untaken == STUCK_TIMES && f->untaken_since > f->took_at;
}

/* Data that the peer has acknowledged as a whole.  One byte may be a probe's. */
static __always_inline bool taken_is_behind(const struct flow *f, const struct packet *p)
{
	return p->payload > 1 && seq_diff(packet_end(p), f->snd_una) <= 0;
}

/* Before the packet has been noted in the flow. */
static __always_inline void taken_out(struct flow *f, const struct packet *p,
				      const struct tuple *kernel, __u64 now)
{
	if (taken_is_behind(f, p)) {
		if (!f->behind)
			f->behind_since = now;
		if (f->behind < STUCK_TIMES)
			f->behind++;
		if (f->behind == STUCK_TIMES && now - f->behind_since >= STUCK_NS)
			taken_not(f, kernel);
		return;
	}
	if (taken_is_told(f, p)) {
		if (f->took_at != now)
			f->took_at = now;
	} else if (!p->payload || seq_diff(packet_end(p), f->snd_nxt) <= 0) {
		return;
	}
	/* An ACK has let it go on, or it had not begun to wait for one. */
	if (f->behind)
		f->behind = 0;
	if (!taken_is_owed(f))
		taken_again(f, kernel);
}

/* Of a segment that may be the peer's own; `end` in kernel view. */
static __always_inline void taken_in(struct flow *f, const struct packet *p, seq end,
				     const struct tuple *kernel, __u64 now)
{
	if (!p->payload || seq_diff(end, f->rcv_nxt) <= 0)
		return;
	if (f->took_at >= f->untaken_since) {
		if (f->untaken_since != now)
			f->untaken_since = now;
		if (f->untaken != 1)
			f->untaken = 1;
		return;
	}
	if (f->untaken < STUCK_TIMES)
		f->untaken++;
	if (taken_is_owed(f) && now - f->untaken_since >= STUCK_NS)
		taken_not(f, kernel);
}

#endif
