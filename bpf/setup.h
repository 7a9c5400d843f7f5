/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Set-up of a TI flow: TI_OPEN on the SYN and on the SYN/ACK, in both roles, and the reason where
 * a connection stays plain TCP (PROTOCOL.md, section "Set-up").
 *
 *   initiator                              responder
 *   syn_out      ---- SYN    TI_OPEN ---->  syn_in        remembers the initiator's half
 *   syn_ack_in   <--- SYN/ACK TI_OPEN ----  syn_ack_out   creates its flow, embryonic
 *   creates its flow     ---- ACK ------->  opens it (embryo.h)
 *
 * Where the SYNs of both ends cross (RFC 9293, section 3.5) each would have both roles: plain.
 */
#ifndef TIFLOW_SETUP_H
#define TIFLOW_SETUP_H

#include "embryo.h"
#include "room.h"

static __always_inline bool key_is_ours(const struct settings *s, __u8 key_id)
{
	return key_id && s->key_ids[key_id >> 3] & 1 << (key_id & 7);
}

/* RFC 6994: the container; then what PROTOCOL.md calls a half. */
static __always_inline int open_fill(struct ti_open *o, __u8 key_id)
{
	struct half half;

	if (bpf_map_pop_elem(&halves, &half))
		return LEGACY_NO_HALVES;
	o->kind = OPTION_KIND;
	o->length = OPTION_OPEN_LENGTH;
	o->exid = bpf_htons(OPTION_EXID);
	o->version_subtype = OPTION_VERSION << 4 | SUBTYPE_OPEN;
	o->flags = 0;
	o->key_id = key_id;
	o->reserved = 0;
	o->tifid_half = half.tifid_half;
	__builtin_memcpy(o->key_half, half.key_half, sizeof(o->key_half));
	return 0;
}

/* Loads the peer's TI_OPEN.  A half of zero names nothing: as good as no option. */
static __always_inline bool open_load(struct __sk_buff *skb, const struct packet *p,
				      const struct options *o, struct ti_open *open)
{
	if (!o->ti || o->ti_subtype != SUBTYPE_OPEN)
		return false;
	return !bpf_skb_load_bytes(skb, p->l4 + o->ti, open, sizeof(*open)) && open->tifid_half;
}

static __always_inline void half_open_note(struct half_open *h, const struct packet *p,
					   const struct options *o)
{
	h->iss = bpf_ntohl(p->tcp.seq);
	h->options = o->negotiated;
	h->wscale = o->wscale;
	h->mss = o->mss;
}

/* Whether TI_OPEN was lost on the way to this destination not long ago, more than once. */
static __always_inline bool peer_is_plain(const struct plain_peer *known)
{
	return known && known->losses >= PLAIN_PEER_LOSSES && known->until > bpf_ktime_get_ns();
}

/* What the answer to our SYNs with TI_OPEN tells of the destination.  Two SYNs may be lost by chance,
 * and with them those of all connections that were opened at that moment: so much is a suspicion, and
 * the next connection confirms it or not.
 */
static __always_inline void plain_peer_note(const struct address *peer, const struct half_open *h,
					    const struct options *answer, const struct settings *s)
{
	struct plain_peer lost = {
		.until = bpf_ktime_get_ns() + s->plain_peer_ttl_s * 1000000000ULL,
		.losses = h->suspect ? PLAIN_PEER_LOSSES : 1,
	};

	if (h->syns <= SYNS_WITH_OPTION || answer->ti)
		bpf_map_delete_elem(&plain_peers, peer);
	else
		bpf_map_update_elem(&plain_peers, peer, &lost, BPF_ANY);
}

static __always_inline __u16 syn_out_reason(const struct packet *p, const struct options *o,
					    const struct plain_peer *known)
{
	if (o->reason)
		return o->reason;
	if (p->payload)
		return LEGACY_SYN_DATA;
	if (p->forwarded && !p->gateway)
		return LEGACY_FORWARDED;
	if (!room_is_found(p, o))
		return LEGACY_NO_ROOM;
	if (peer_is_plain(known))
		return LEGACY_PEER_REMEMBERED;
	return REASON_NONE;
}

/* A half that another flow of ours has is as good as none: rare, the daemon sees to it. */
static __always_inline int flow_insert(const struct tuple *kernel, const struct flow *f, __be32 half)
{
	if (bpf_map_update_elem(&tifids, &half, kernel, BPF_NOEXIST))
		return -1;
	if (!bpf_map_update_elem(&flows, kernel, f, BPF_ANY))
		return 0;
	bpf_map_delete_elem(&tifids, &half);
	return -1;
}

/* Creates the flow of a half-open connection whose peer has answered, or whom we are about to
 * answer.  `o`: the options of the SYN/ACK.
 */
static __always_inline int flow_create(struct __sk_buff *skb, const struct half_open *h,
				       const struct packet *syn_ack, const struct options *o)
{
	const struct tuple *kernel = &syn_ack->tuple;
	__u32 zero = 0;
	struct flow *f = bpf_map_lookup_elem(&scratch, &zero);
	bool initiator = h->role == ROLE_INITIATOR;
	__be32 half = h->local.tifid_half;
	seq answer = bpf_ntohl(syn_ack->tcp.seq);

	if (!f)
		return LEGACY_TABLE_FULL;
	__builtin_memset(f, 0, sizeof(*f));
	f->initiator = initiator ? h->local : h->remote;
	f->responder = initiator ? h->remote : h->local;
	f->iss = initiator ? h->iss : answer;
	f->irs = initiator ? answer : h->iss;
	f->snd_una = f->snd_nxt = f->iss + 1;
	f->rcv_nxt = f->rcv_max = f->irs + 1;
	f->created = f->seen_in = f->seen_out = bpf_ktime_get_coarse_ns();
	f->role = h->role;
	f->flags = initiator ? 0 : FLOW_EMBRYONIC;
	/* Of what we open, the ACK of the handshake tells. */
	if (syn_ack->forwarded)
		f->flags |= FLOW_FORWARDED;
	if (syn_ack->gateway || (initiator && !kernel->tap))
		f->outside = skb->ifindex;
	f->options = h->options & o->negotiated;
	f->wscale_out = initiator ? h->wscale : o->wscale;
	f->wscale_in = initiator ? o->wscale : h->wscale;
	f->mss_out = initiator ? h->mss : o->mss;
	f->mss_in = initiator ? o->mss : h->mss;
	if (flow_insert(kernel, f, half) &&
	    (!embryo_evict(EMBRYOS_LOOKED_AT) || flow_insert(kernel, f, half)))
		return LEGACY_TABLE_FULL;
	bpf_map_delete_elem(&plain, kernel);
	if (!initiator) {
		embryo_note(kernel);
		return 0;
	}
	count(COUNT_FLOW_OPENED);
	event_flow(EVENT_OPENED, kernel, false);
	return 0;
}

static __always_inline int option_verdict(int result, const struct tuple *t)
{
	if (result == DROP_REWRITE)
		return drop(DROP_REWRITE);
	if (result)
		plain_record(t, result);
	return PASS;
}

/* A new SYN, or one more of the same: those repeat the option verbatim, up to the limit. */
static __always_inline int syn_out(struct __sk_buff *skb, const struct packet *p,
				   const struct options *o)
{
	struct half_open *known = bpf_map_lookup_elem(&half_open, &p->tuple);
	struct settings *s = settings_read();
	struct half_open h = { .role = ROLE_INITIATOR, .syns = 1 };
	struct flow *former = bpf_map_lookup_elem(&flows, &p->tuple);
	struct plain_peer *peer;

	if (known && known->role == ROLE_INITIATOR && known->iss == bpf_ntohl(p->tcp.seq)) {
		if (known->syns < 255)
			known->syns++;
		if (known->reason || known->syns > SYNS_WITH_OPTION)
			return PASS;
		return option_verdict(room_take(skb, p, o, &known->local), &p->tuple);
	}
	/* Our kernel opens this tuple anew: it holds no socket on it any more.  A host behind us may say
	 * so of another one's: the answer shows whether it is true.
	 */
	if (former && !p->forwarded)
		flow_forget(&p->tuple, former);
	if (!s || !s->enabled)
		return PASS;
	half_open_note(&h, p, o);
	peer = bpf_map_lookup_elem(&plain_peers, &p->tuple.remote);
	h.suspect = peer && (peer->losses >= PLAIN_PEER_LOSSES || peer->until > bpf_ktime_get_ns());
	h.reason = syn_out_reason(p, o, peer);
	if (!h.reason)
		h.reason = open_fill(&h.local, s->key_id);
	bpf_map_update_elem(&half_open, &p->tuple, &h, BPF_ANY);
	if (h.reason) {
		plain_record(&p->tuple, h.reason);
		return PASS;
	}
	return option_verdict(room_take(skb, p, o, &h.local), &p->tuple);
}

/* Whether a SYN/ACK is about the SYN that was sent. */
static __always_inline bool half_open_answered(const struct half_open *h, const struct packet *p)
{
	return h->role == ROLE_INITIATOR && bpf_ntohl(p->tcp.ack_seq) == h->iss + 1;
}

static __always_inline bool syn_is_answered(const struct packet *p)
{
	struct half_open *known = bpf_map_lookup_elem(&half_open, &p->tuple);

	return known && p->flags & TCP_ACK && half_open_answered(known, p);
}

static __always_inline int syn_ack_in(struct __sk_buff *skb, const struct packet *p,
				      const struct options *o)
{
	struct half_open *known = bpf_map_lookup_elem(&half_open, &p->tuple);
	struct settings *s = settings_read();
	struct flow *former = bpf_map_lookup_elem(&flows, &p->tuple);
	struct half_open h;
	__u16 reason;

	if (!known || !half_open_answered(known, p) || !s)
		return PASS;
	if (former)
		flow_forget(&p->tuple, former);
	h = *known;
	reason = h.reason ? h.reason : o->reason;
	/* A SYN without TI_OPEN has left: whatever the peer had before, it holds that for plain. */
	if (!reason && h.syns > SYNS_WITH_OPTION)
		reason = LEGACY_SYN_LOST;
	if (!reason && !open_load(skb, p, o, &h.remote))
		reason = LEGACY_PEER_PLAIN;
	if (!reason && h.local.key_id && h.remote.key_id != h.local.key_id)
		reason = LEGACY_NO_PSK;
	if (!reason)
		reason = flow_create(skb, &h, p, o);
	if (reason && reason != h.reason)
		plain_record(&p->tuple, reason);
	if (!h.reason)
		plain_peer_note(&p->tuple.remote, &h, o, s);
	bpf_map_delete_elem(&half_open, &p->tuple);
	return PASS;
}

/* The initiator has left TI_OPEN out by now: what carries it does not get through, on the way there
 * or on the way back.
 */
static __always_inline void syn_in_plain(const struct packet *p, struct half_open *known)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &p->tuple);

	if (f && f->responder.tifid_half == known->local.tifid_half) {
		if (!(f->flags & FLOW_EMBRYONIC))
			return; /* late, or made up */
		flow_forget(&p->tuple, f);
	}
	known->reason = LEGACY_SYN_LOST;
	plain_record(&p->tuple, LEGACY_SYN_LOST);
}

static __always_inline int syn_in(struct __sk_buff *skb, const struct packet *p,
				  const struct options *o)
{
	struct half_open *known = bpf_map_lookup_elem(&half_open, &p->tuple);
	struct settings *s = settings_read();
	struct half_open h = { .role = ROLE_RESPONDER };
	__u16 reason = o->reason;

	if (!s || !s->enabled)
		return PASS;
	/* It crosses ours, or is a stranger's: what our kernel says to it will tell. */
	if (known && known->role == ROLE_INITIATOR)
		return PASS;
	if (known && known->role == ROLE_RESPONDER && known->iss == bpf_ntohl(p->tcp.seq)) {
		if (!known->reason && !open_load(skb, p, o, &h.remote))
			syn_in_plain(p, known);
		return PASS;
	}
	if (!reason && !open_load(skb, p, o, &h.remote))
		reason = LEGACY_PEER_PLAIN;
	/* Whoever is on the way may have cleared it: of that flow they could compute the keys. */
	if (!reason && s->key_id && !key_is_ours(s, h.remote.key_id))
		reason = LEGACY_NO_PSK;
	if (reason) {
		plain_record(&p->tuple, reason);
		bpf_map_delete_elem(&half_open, &p->tuple);
		return PASS;
	}
	half_open_note(&h, p, o);
	bpf_map_update_elem(&half_open, &p->tuple, &h, BPF_ANY);
	return PASS;
}

/* Each SYN that comes again is answered again, and the kernel's own timer does so as well.  A listener
 * with SYN cookies answers with another ISN each time: the flow follows the last one, until it is
 * open.
 */
static __always_inline int syn_ack_out_again(struct __sk_buff *skb, const struct packet *p,
					     const struct options *o, struct half_open *known)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &p->tuple);

	if (!f || f->responder.tifid_half != known->local.tifid_half)
		return PASS;
	if (f->flags & FLOW_EMBRYONIC) {
		f->iss = bpf_ntohl(p->tcp.seq);
		f->snd_una = f->snd_nxt = f->iss + 1;
	}
	return option_verdict(room_take(skb, p, o, &known->local), &p->tuple);
}

/* Our kernel answers a SYN on a tuple on which it has sent one: both are of one connection if the
 * numbers are the same, and else ours came to nothing long ago.
 */
static __always_inline void syn_ack_out_crossed(const struct packet *p, struct half_open *known)
{
	if (known->iss != bpf_ntohl(p->tcp.seq)) {
		bpf_map_delete_elem(&half_open, &p->tuple);
		return;
	}
	if (known->reason == LEGACY_SIMULTANEOUS_OPEN)
		return;
	known->reason = LEGACY_SIMULTANEOUS_OPEN;
	plain_record(&p->tuple, LEGACY_SIMULTANEOUS_OPEN);
}

static __always_inline int syn_ack_out(struct __sk_buff *skb, const struct packet *p,
				       const struct options *o)
{
	struct half_open *known = bpf_map_lookup_elem(&half_open, &p->tuple);
	struct settings *s = settings_read();
	struct flow *former = bpf_map_lookup_elem(&flows, &p->tuple);
	__u16 reason = o->reason;

	if (known && known->role == ROLE_INITIATOR)
		syn_ack_out_crossed(p, known);
	if (!known || known->role != ROLE_RESPONDER || known->reason || !s)
		return PASS;
	if (bpf_ntohl(p->tcp.ack_seq) != known->iss + 1)
		return PASS;
	if (known->syns < 255)
		known->syns++;
	if (known->syns > 1)
		return syn_ack_out_again(skb, p, o, known);
	if (former)
		flow_forget(&p->tuple, former);
	if (!reason && p->forwarded && !p->gateway)
		reason = LEGACY_FORWARDED;
	if (!reason && !room_is_found(p, o))
		reason = LEGACY_NO_ROOM;
	if (!reason)
		reason = open_fill(&known->local, key_is_ours(s, known->remote.key_id) ?
						 known->remote.key_id : 0);
	if (!reason)
		reason = flow_create(skb, known, p, o);
	if (reason) {
		known->reason = reason;
		plain_record(&p->tuple, reason);
		return PASS;
	}
	return option_verdict(room_take(skb, p, o, &known->local), &p->tuple);
}

#endif
