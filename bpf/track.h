/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a flow's packets tell: how far either stream has come, whether it is over, and whether a
 * reset can be believed.  All in kernel view.
 */
#ifndef TIFLOW_TRACK_H
#define TIFLOW_TRACK_H

#include "embryo.h"
#include "taken.h"

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

static __always_inline void flow_flag(struct flow *f, __u32 flag)
{
	if (!(f->flags & flag))
		__sync_fetch_and_or(&f->flags, flag);
}

/* Two CPUs may have packets of one flow at once, where it is not our own kernel's. */
static __always_inline void seq_raise(seq *number, seq to)
{
	seq known = *number, now;

	if (seq_diff(to, known) <= 0)
		return;
	now = __sync_val_compare_and_swap(number, known, to);
	if (now != known && seq_diff(to, now) > 0)
		__sync_val_compare_and_swap(number, now, to);
}

/* To be called when a flow has ended with this packet.  One that has not moved needs no entry any
 * more, if nobody can object: a kernel may refuse the peer's reset, a host that of its neighbour.
 * Whether it is gone.
 */
static __always_inline bool flow_end(struct flow *f, const struct tuple *kernel, bool final)
{
	if (f->flags & FLOW_EMBRYONIC) {
		flow_forget(kernel, f);
		return true;
	}
	count(COUNT_FLOW_ENDED);
	event_flow(EVENT_ENDED, kernel, false);
	if (f->active || !final)
		return false;
	flow_forget(kernel, f);
	return true;
}

/* Stalled: a timer has sent twice, a second apart or more, and nothing at all has come in since the
 * first.  Loss and congestion let something in now and then.  Not three times: a timer that has backed off
 * takes ten seconds and more for that.  A burst counts as one, so do the segments of a fast
 * recovery: only a timer waits for PAUSE_NS.  What is held is not expected to be
 * answered, so the first one counts, once the path has been silent for as long.
 */
#define STALL_RESENT 2
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

static __always_inline __s32 window_scaled(const struct flow *f, __u16 window, __u8 scale)
{
	__s32 bytes = (__u32)window << (f->options & NEGOTIATED_WSCALE ? scale & 15 : 0);

	/* That of a SYN is not scaled. */
	return bytes < 65535 ? 65535 : bytes;
}

static __always_inline bool seq_within(seq s, seq low, seq high)
{
	return seq_diff(s, low) >= 0 && seq_diff(s, high) <= 0;
}

static __always_inline seq seq_max(seq a, seq b)
{
	return seq_diff(a, b) > 0 ? a : b;
}

/* What our own kernel sends is true.  Of another host's connection a neighbour can send as well, who
 * does not see it: so the numbers must be near, and those of a reset such as a kernel sends.
 */
static __always_inline bool flow_may_send(const struct flow *f, const struct packet *p)
{
	__s32 sent = window_scaled(f, f->window_in_max, f->wscale_in);
	__s32 received = window_scaled(f, f->window_out, f->wscale_out);
	seq s = bpf_ntohl(p->tcp.seq), ack = bpf_ntohl(p->tcp.ack_seq);

	if (!p->forwarded)
		return true;
	if (p->flags & TCP_RST)
		return seq_within(s, f->snd_una, f->snd_nxt);
	return seq_within(s, f->snd_una - sent, f->snd_nxt + sent) &&
	       (!(p->flags & TCP_ACK) ||
		seq_within(ack, f->rcv_nxt - received, seq_max(f->rcv_nxt, f->rcv_max) + received));
}

/* The base counts only until SND.UNA has left it well behind: 2 GiB later it would seem to lie ahead. */
static __always_inline bool base_counts(const struct flow *f, seq base)
{
	return f->snd_una - base < 1U << 30;
}

/* Its kernel sends again what was acknowledged: so it has refused that ACK, for its checksum, say.
 * If it was true and they crossed, the peer acknowledges this once more.  A keepalive, or a probe,
 * begins one below (RFC 9293, section 3.8.4).
 */
static __always_inline void flow_take_back(struct flow *f, const struct packet *p)
{
	struct mapping *m = flow_mapping(f);
	seq s = bpf_ntohl(p->tcp.seq);
	__s32 below = seq_diff(f->snd_una, s);

	if (below <= 0 || !(p->payload || p->flags & TCP_FIN) || (below == 1 && p->payload <= 1))
		return;
	/* What is below the base the peer has vouched for with its TIAck, as long as that counts. */
	if (m && base_counts(f, m->snd_base) && seq_within(m->snd_base, s, f->snd_una))
		s = m->snd_base;
	f->snd_una = s;
}

/* Nothing in flight, and it probes for a window, which lies one below SND.NXT (RFC 9293, section 3.8.4):
 * what that was closed for is acknowledged, by an ACK that came before it was closed, or that the
 * daemon has injected.  No other would come.
 */
static __always_inline void flow_open_window(struct flow *f, const struct packet *p)
{
	if (f->flags & FLOW_CLOSED && !p->payload && !(p->flags & TCP_FIN) &&
	    bpf_ntohl(p->tcp.seq) + 1 == f->snd_nxt)
		__sync_fetch_and_and(&f->flags, ~FLOW_CLOSED);
}

/* Only an ACK of its kernel says that a FIN has been taken: there are many reasons not to. */
static __always_inline void flow_track_fin_taken(struct flow *f, seq ack)
{
	__s32 beyond = seq_diff(ack, f->rcv_fin);

	if (!(f->flags & FLOW_FIN_SEEN) || beyond < 0)
		return;
	if (!beyond)
		flow_flag(f, FLOW_FIN_RECEIVED);
	__sync_fetch_and_and(&f->flags, ~FLOW_FIN_SEEN);
}

/* Returns whether the flow is gone with this packet. */
static __always_inline bool flow_track_out(struct flow *f, const struct packet *p,
					   const struct tuple *kernel, __u64 now)
{
	bool over = flow_is_over(f);
	seq ack = bpf_ntohl(p->tcp.ack_seq);

	if (!flow_may_send(f, p))
		return false;
	if (p->flags & TCP_RST) {
		flow_flag(f, FLOW_RESET);
		return !over && flow_end(f, kernel, !p->forwarded);
	}
	if (f->flags & FLOW_EMBRYONIC)
		embryo_out(f, p, kernel);
	if (p->payload && now - f->seen_out > PAUSE_NS && f->snd_una == f->snd_nxt)
		f->resumed_at = now;
	taken_out(f, p, kernel, now);
	flow_take_back(f, p);
	flow_open_window(f, p);
	flow_track_resent(f, p, kernel, now);
	if (f->seen_out != now)
		f->seen_out = now;
	/* It goes on, so it has refused the reset, or has sent this before that came. */
	if (f->flags & FLOW_RESET)
		__sync_fetch_and_and(&f->flags, ~FLOW_RESET);
	seq_raise(&f->snd_nxt, packet_end(p));
	if (p->flags & TCP_ACK) {
		seq_raise(&f->rcv_nxt, ack);
		if (f->active)
			seq_raise(&f->rcv_before, ack);
		flow_track_fin_taken(f, ack);
	}
	if (f->window_out != bpf_ntohs(p->tcp.window))
		f->window_out = bpf_ntohs(p->tcp.window);
	if (p->flags & TCP_FIN)
		flow_flag(f, FLOW_FIN_SENT);
	return !over && flow_is_over(f) && flow_end(f, kernel, true);
}

/* Only a segment that may be the peer's own says anything of it: in the window, and with an ACK that
 * is not older than the largest window that it has ever told, as RFC 9293 (section 3.10.7.4) and RFC
 * 5961 (section 5.2) ask of the kernel.  So nobody off the path can shift the bounds within which a
 * TIAck is valid.  A peer that has moved begins at the base again, however much came before that.
 */
static __always_inline bool flow_expects(struct flow *f, seq s, seq ack)
{
	__s32 window = window_scaled(f, f->window_out, f->wscale_out);
	__s32 window_in = window_scaled(f, f->window_in_max, f->wscale_in);
	struct mapping *m = flow_mapping(f);
	seq low = f->rcv_nxt - window;

	if (m && seq_diff(f->rcv_max, f->rcv_nxt) < 0 && seq_diff(m->rcv_base, low) < 0)
		low = m->rcv_base;
	return seq_within(s, low, f->rcv_nxt + window) &&
	       seq_within(ack, f->snd_una - window_in, f->snd_nxt);
}

/* An ACK never goes back, so what acknowledges less than is acknowledged already was sent before what has
 * come: it says nothing of how the path is now.
 */
static __always_inline bool flow_is_overtaken(const struct flow *f, seq ack)
{
	return seq_diff(ack, f->snd_una) < 0;
}

/* For how long nothing has come in, although something was sent. */
static __always_inline __u64 flow_silence(const struct flow *f, __u64 now)
{
	return now - (f->resumed_at > f->seen_in ? f->resumed_at : f->seen_in);
}

/* The next packet that comes in is to be told, for the kernel's TCP to go on now: its timer has backed off,
 * and it has sent again not long ago, so that the next time may be many seconds away.
 */
static __always_inline bool flow_is_to_revive(const struct flow *f, __u64 now)
{
	if (f->flags & FLOW_STALLED)
		return true;
	return f->snd_una != f->snd_nxt && flow_is_unanswered(f) && flow_silence(f, now) >= STALL_NS;
}

static __always_inline void flow_revive(struct flow *f, const struct tuple *kernel)
{
	if (f->flags & FLOW_STALLED)
		__sync_fetch_and_and(&f->flags, ~FLOW_STALLED);
	event_flow(EVENT_REVIVED, kernel, true);
}

/* What Linux takes in, ACK and all: no segment that ends before the last ACK (tcp_sequence). */
static __always_inline void flow_take(struct flow *f, const struct packet *p, seq end, seq ack)
{
	__u16 window = bpf_ntohs(p->tcp.window);

	if (seq_diff(end, f->rcv_nxt) < 0)
		return;
	if (seq_diff(ack, f->snd_una) >= 0 && f->window_in != window) {
		f->window_in = window;
		if (window > f->window_in_max)
			f->window_in_max = window;
	}
	if (seq_diff(ack, f->snd_una) > 0) {
		seq_raise(&f->snd_una, ack);
		if (f->flags & FLOW_CLOSED)
			__sync_fetch_and_and(&f->flags, ~FLOW_CLOSED);
	}
	if (p->flags & TCP_FIN && !(f->flags & FLOW_FIN_RECEIVED)) {
		f->rcv_fin = end;
		flow_flag(f, FLOW_FIN_SEEN);
	}
}

/* `s` and `ack` in kernel view.  Returns whether the flow is gone with this packet.  A call of its own
 * for the sake of the stack, see tap_is_guests.
 */
static __noinline bool flow_track_in(struct flow *f, const struct packet *p, seq s, seq ack,
					  const struct tuple *kernel)
{
	bool over = flow_is_over(f);
	seq end = s + p->payload + !!(p->flags & TCP_FIN);
	__u64 now = bpf_ktime_get_coarse_ns();
	bool revive;

	if (!(p->flags & TCP_ACK))
		return false;
	if (f->flags & FLOW_EMBRYONIC && !embryo_in(f, kernel, ack))
		return false;
	if (!flow_expects(f, s, ack))
		return false;
	revive = !flow_is_overtaken(f, ack) && flow_is_to_revive(f, now);
	if (!flow_is_overtaken(f, ack) && f->seen_in != now)
		f->seen_in = now;
	seq_raise(&f->rcv_max, end);
	taken_in(f, p, end, kernel, now);
	flow_take(f, p, end, ack);
	if (f->gap_since) {
		f->gap = now - f->gap_since;
		f->gap_since = 0;
		__sync_fetch_and_and(&f->flags, ~FLOW_UNPROVEN);
		event_flow(EVENT_PROVEN, kernel, true);
	}
	if (revive)
		flow_revive(f, kernel);
	return !over && flow_is_over(f) && flow_end(f, kernel, true);
}

/* Whether a kernel may believe it: at RCV.NXT, which is between the last ACK that was seen and the end
 * of what has come in.  A peer that has moved may not have come so far again.
 */
static __always_inline bool rst_is_plausible(const struct flow *f, seq s)
{
	return seq_within(s, f->rcv_nxt, seq_max(f->rcv_nxt, f->rcv_max));
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
	__u64 silence = flow_silence(f, bpf_ktime_get_coarse_ns());

	if (f->flags & (FLOW_HELD | FLOW_UNPROVEN))
		return true;
	if (!(f->flags & FLOW_FIN_RECEIVED) &&
	    (flow_is_unanswered(f) || (f->snd_una != f->snd_nxt && f->resumed_at > f->seen_in)))
		return true;
	return s && f->snd_una != f->snd_nxt && silence > s->rst_silent_ms * 1000000ULL;
}

/* The packet is in kernel view by now.  Anything but an exact match is answered by a challenge ACK
 * (RFC 5961, section 3.2), or by nothing; a NAT that answers with SEQ 0 is not worth waiting for.
 */
static __always_inline int rst_in(struct __sk_buff *skb, const struct packet *p, struct flow *f,
				  const struct tuple *kernel, seq s)
{
	bool over = flow_is_over(f);

	if (!rst_is_plausible(f, s))
		return PASS;
	if (rst_is_doubtful(f)) {
		event_packet(skb, p, EVENT_RST, kernel);
		return drop(DROP_RST_QUARANTINE);
	}
	flow_flag(f, FLOW_RESET);
	if (!over)
		flow_end(f, kernel, false);
	return PASS;
}

#endif
