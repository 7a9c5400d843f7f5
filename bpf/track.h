/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a flow's packets tell: how far either stream has come, whether it is over, and whether a
 * reset can be believed.  All in kernel view.
 */
#ifndef TIFLOW_TRACK_H
#define TIFLOW_TRACK_H

#include "maps.h"

/* Who sends more often than that has had answers lately, or waits for one. */
#define PAUSE_NS 100000000ULL

/* Before a planned move no window is told to either end: what is in flight is acknowledged, and
 * nothing is left that could be lost.  It ends by itself: the daemon may die meanwhile.
 */
static __always_inline bool flow_is_frozen(const struct flow *f)
{
	return f->frozen_until && bpf_ktime_get_coarse_ns() < f->frozen_until;
}

/* A kernel that has sent again for longer than its limit gives up with the next timeout, unless the
 * window is closed.  So it stays closed until an ACK has set the limit back.
 */
static __always_inline bool flow_hides_window(const struct flow *f)
{
	return flow_is_frozen(f) || f->flags & FLOW_CLOSED;
}

/* An ACK of a kernel that hears of no window although data is in flight: Linux then does not dare to go
 * beyond the window, and sends with SND.UNA (tcp_acceptable_seq).  The peer, who has that data, drops
 * it for too old, ACK and all.  Two such ends never hear of each other again.
 */
static __always_inline bool flow_ack_lags(const struct flow *f, const struct packet *p)
{
	if (!flow_hides_window(f) || f->flags & FLOW_UNPROVEN)
		return false;
	return !p->payload && !p->fragment && !(p->flags & (TCP_FIN | TCP_RST)) &&
	       bpf_ntohl(p->tcp.seq) == f->snd_una && f->snd_una != f->snd_nxt;
}

static __always_inline void flow_flag(struct flow *f, __u32 flag, const struct tuple *kernel)
{
	bool over = flow_is_over(f);

	if (f->flags & flag)
		return;
	__sync_fetch_and_or(&f->flags, flag);
	if (!over && flow_is_over(f)) {
		count(COUNT_FLOW_ENDED);
		event_flow(EVENT_ENDED, kernel, false);
	}
}

/* Stalled: a timer has sent three times, for a second, and nothing at all has come in since the
 * first.  Loss and congestion let something in now and then.  A burst counts as one, so do the
 * segments of a fast recovery: only a timer waits for PAUSE_NS.  What is held is not expected to be
 * answered, so the first one counts, once the path has been silent for as long.
 */
#define STALL_RESENT 3
#define STALL_NS 1000000000ULL

static __always_inline bool flow_is_unanswered(const struct flow *f)
{
	return f->resent && f->resent_since > f->seen_in;
}

/* A segment that begins below SND.NXT has been sent before, or probes: a keepalive, or one into a
 * closed window (RFC 9293, section 3.8.4).  Each one is told while the flow is stalled: the daemon
 * answers it in the peer's stead, or its TCP would give up.
 */
static __always_inline void flow_track_resent(struct flow *f, const struct packet *p,
					      const struct tuple *kernel, __u64 now)
{
	bool held = f->flags & FLOW_HELD;

	if (seq_diff(bpf_ntohl(p->tcp.seq), f->snd_nxt) >= 0 || now - f->seen_out <= PAUSE_NS)
		return;
	if (!flow_is_unanswered(f)) {
		f->resent_since = now;
		f->resent = 0;
	}
	if (f->resent < 255)
		f->resent++;
	if (!held && f->resent < STALL_RESENT)
		return;
	if (now - (held ? f->seen_in : f->resent_since) < STALL_NS)
		return;
	__sync_fetch_and_or(&f->flags, FLOW_STALLED);
	event_flow(EVENT_STALLED, kernel, true);
}

static __always_inline void flow_track_out(struct flow *f, const struct packet *p,
					   const struct tuple *kernel, __u64 now)
{
	seq end = packet_end(p);
	seq ack = bpf_ntohl(p->tcp.ack_seq);

	if (p->payload && now - f->seen_out > PAUSE_NS && f->snd_una == f->snd_nxt)
		f->resumed_at = now;
	if (!(p->flags & TCP_RST))
		flow_track_resent(f, p, kernel, now);
	if (f->seen_out != now)
		f->seen_out = now;
	if (p->flags & TCP_RST) {
		flow_flag(f, FLOW_RESET, kernel);
		return;
	}
	if (seq_diff(end, f->snd_nxt) > 0)
		f->snd_nxt = end;
	if (p->flags & TCP_ACK && seq_diff(ack, f->rcv_nxt) > 0)
		f->rcv_nxt = ack;
	if (f->window_out != bpf_ntohs(p->tcp.window))
		f->window_out = bpf_ntohs(p->tcp.window);
	if (p->flags & TCP_FIN)
		flow_flag(f, FLOW_FIN_SENT, kernel);
}

/* Only a segment that may be the peer's own moves what we know of it: in the window, as RFC 9293
 * (section 3.10.7.4) and RFC 5961 ask of the kernel, so that nobody off the path can shift the
 * bounds within which a TIAck is valid.
 */
static __always_inline bool flow_expects(const struct flow *f, seq s, seq ack)
{
	__u32 scale = f->options & NEGOTIATED_WSCALE ? f->wscale_out & 15 : 0;
	__s32 window = (__u32)f->window_out << scale;

	if (window < 65535)
		window = 65535;
	if (seq_diff(s, f->rcv_nxt) < -window || seq_diff(s, f->rcv_nxt) > window)
		return false;
	return seq_diff(ack, f->snd_nxt) <= 0;
}

/* `s` and `ack` in kernel view. */
static __always_inline void flow_track_in(struct flow *f, const struct packet *p, seq s, seq ack,
					  const struct tuple *kernel)
{
	seq end = s + p->payload + !!(p->flags & TCP_FIN);
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!(p->flags & TCP_ACK) || !flow_expects(f, s, ack))
		return;
	if (f->seen_in != now)
		f->seen_in = now;
	if (seq_diff(ack, f->snd_una) > 0) {
		f->snd_una = ack;
		if (f->flags & FLOW_CLOSED)
			__sync_fetch_and_and(&f->flags, ~FLOW_CLOSED);
	}
	if (seq_diff(end, f->rcv_max) > 0)
		f->rcv_max = end;
	if (f->window_in != bpf_ntohs(p->tcp.window))
		f->window_in = bpf_ntohs(p->tcp.window);
	if (p->flags & TCP_FIN)
		flow_flag(f, FLOW_FIN_RECEIVED, kernel);
	if (f->flags & FLOW_STALLED) {
		__sync_fetch_and_and(&f->flags, ~FLOW_STALLED);
		event_flow(EVENT_REVIVED, kernel, true);
	}
	if (f->gap_since) {
		f->gap = f->seen_in - f->gap_since;
		f->gap_since = 0;
		__sync_fetch_and_and(&f->flags, ~FLOW_UNPROVEN);
		event_flow(EVENT_PROVEN, kernel, true);
	}
}

/* Whether a bare RST may not be about this connection: a stranger owns the peer's old address now,
 * or a NAT on the way has forgotten it, and who got our data under another port, or the NAT itself,
 * answers that.  So the wire is in doubt, or something of ours is unanswered and nothing has come
 * in for a while, or the RST is the first answer after a pause.  But who has sent FIN may well
 * reset what comes after.  A reset that is honest is delivered later, by the daemon.
 */
static __always_inline bool rst_is_doubtful(const struct flow *f)
{
	struct settings *s = settings_read();
	__u64 since = f->resumed_at > f->seen_in ? f->resumed_at : f->seen_in;
	__u64 silence = bpf_ktime_get_coarse_ns() - since;

	if (f->flags & (FLOW_HELD | FLOW_UNPROVEN))
		return true;
	if (!(f->flags & FLOW_FIN_RECEIVED) &&
	    (flow_is_unanswered(f) || (f->snd_una != f->snd_nxt && f->resumed_at > f->seen_in)))
		return true;
	return s && f->snd_una != f->snd_nxt && silence > s->rst_silent_ms * 1000000ULL;
}

/* The packet is in kernel view by now. */
static __always_inline int rst_in(struct __sk_buff *skb, const struct packet *p, struct flow *f,
				  const struct tuple *kernel, seq s)
{
	if (rst_is_doubtful(f)) {
		event_packet(skb, p, EVENT_RST, kernel);
		return drop(DROP_RST_QUARANTINE);
	}
	/* Anything but an exact match is answered by a challenge ACK (RFC 5961, section 3.2). */
	if (s == f->rcv_nxt)
		flow_flag(f, FLOW_RESET, kernel);
	return PASS;
}

#endif
