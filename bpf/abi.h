/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Everything that the data plane and the control plane share: map keys and values,
 * events, commands, reasons, limits.  This is the only declaration: the TypeScript side
 * (src/boundary/abi.gen.ts) is generated from the BTF of the compiled object.
 *
 * Two views of one connection (docs/ARCHITECTURE.md):
 *
 *   kernel view   the tuple and the sequence numbers of the endpoint's kernel; never change
 *   wire view     what the network sees now
 *   wire = kernel + delta, per direction, constant between two moves
 *
 * All sequence numbers kept here are in kernel view and host order.  Maps are pinned and
 * outlive the daemon: raise ABI_VERSION on any change of a layout.
 */
#ifndef TIFLOW_ABI_H
#define TIFLOW_ABI_H

#define ABI_VERSION 4

typedef __u32 seq; /* a TCP sequence number, host order */

enum limit {
	FLOWS_MAX = 65536,      /* default; the daemon may set another before loading */
	HALF_OPEN_MAX = 16384,  /* as many as Linux' own default SYN backlog allows, and spare */
	PLAIN_MAX = 65536,      /* legacy connections whose reason is remembered */
	PLAIN_PEERS_MAX = 4096, /* destinations where the option got no answer */
	EMBRYOS_MAX = 16384,    /* flows whose SYN/ACK has no answer yet; a quarter of FLOWS_MAX */
	HALVES_MAX = 16384,     /* random TIFID and key halves in stock */
	EVENT_BYTES = 1048576,  /* a ring buffer */
	EVENT_HEAD = 64,        /* an event without a packet */
	BUDGETS_MAX = 65536,    /* of what anybody can send to the daemon, by sender */
	PACKET_MAX = 640,       /* bytes of a packet copied into an event: all headers, or a DHCP message */
	TAPS_MAX = 4096,        /* taps of VMs with a boundary */
	GUEST_ADDRESSES = 4,    /* IPv6 addresses of a guest that are answered for */
	SYNS_WITH_OPTION = 2,   /* from the third SYN on TI_OPEN is left out */
	PLAIN_PEER_LOSSES = 2,  /* from the third connection on as well: one may be bad luck */
	EXTENSION_HEADERS_MAX = 4,
};

enum option {
	OPTION_KIND = 253,    /* RFC 6994 shared experimental option */
	OPTION_EXID = 0x5449, /* "TI" */
	OPTION_VERSION = 1,
	OPTION_OPEN_LENGTH = 20,
	OPTION_SYNC_LENGTH = 31,
	OPTION_CONFIRM_LENGTH = 23,
	OPTION_RST_LENGTH = 16,
	OPTION_TIFID_AT = 7, /* of the TI_SYNC of a SYN: both halves */
	OPTION_NOPS_FULL = 4, /* nobody aligns with so many in a row */
};

enum subtype { SUBTYPE_OPEN = 0, SUBTYPE_SYNC = 1, SUBTYPE_CONFIRM = 2, SUBTYPE_RST = 3 };

/* IPv4 is kept as ::ffff:a.b.c.d, so that one table serves both families. */
struct address {
	__u8 byte[16];
};

/* A connection as one endpoint names it: mine first, whatever the packet's direction.  Two VMs of
 * one machine may have the same address at home, so whose connection it is belongs to its name.
 */
struct tuple {
	struct address local;
	struct address remote;
	__be16 local_port;
	__be16 remote_port;
	__u32 tap; /* ifindex of the tap of the VM that it is a connection of; 0: our own kernel's */
};

/* TI_OPEN, verbatim as on the wire. */
struct ti_open {
	__u8 kind;
	__u8 length;
	__be16 exid;
	__u8 version_subtype;
	__u8 flags;
	__u8 key_id;
	__u8 reserved;
	__be32 tifid_half;
	__u8 key_half[8];
};

/* What the daemon stocks for us: random bytes of the operating system. */
struct half {
	__be32 tifid_half;
	__u8 key_half[8];
};

enum role { ROLE_INITIATOR = 0, ROLE_RESPONDER = 1 };

/* Options of the original handshake; a synchronization must repeat them. */
enum negotiated { NEGOTIATED_SACK = 1, NEGOTIATED_TIMESTAMPS = 2, NEGOTIATED_WSCALE = 4 };

/* A connection between its SYN and its SYN/ACK. */
struct half_open {
	struct ti_open local;
	struct ti_open remote; /* responder only, else zero */
	seq iss;               /* of the SYN that created the entry: sent or received */
	__u8 role;             /* enum role */
	__u8 syns;             /* SYNs seen */
	__u8 options;          /* enum negotiated, offered by the SYN */
	__u8 wscale;           /* offered by the SYN */
	__u16 mss;             /* of the SYN, 0: none */
	__u16 reason;          /* enum reason: why TI_OPEN was left out; 0: it was sent */
	__u8 suspect;          /* the destination was in `plain_peers` when the first SYN left */
	__u8 pad[3];
};

/* The wire of a flow that has moved. */
struct mapping {
	struct tuple wire;
	seq snd_delta; /* wire - kernel of what we send */
	seq rcv_delta; /* wire - kernel of what we receive */
	seq snd_base;  /* nothing below is emitted: the peer's TIAck, as a sequence number */
	seq rcv_base;  /* the peer begins here: our TIAck, as a sequence number */
	__u32 redirect; /* bit 0: the next hop to the wire's remote is not the kernel's choice;
			 * above: ifindex by which it leaves, 0: the kernel's choice
			 */
};

enum flow_flag {
	FLOW_HELD = 1,     /* egress is swallowed: the wire is gone, a synchronization runs */
	FLOW_UNPROVEN = 2, /* mover: mapped, but nothing has come back yet: announce it */
	FLOW_FIN_SENT = 4,
	FLOW_FIN_RECEIVED = 8, /* and acknowledged: our kernel has taken it */
	FLOW_RESET = 16,
	FLOW_FORWARDED = 32, /* another host's: this machine is its gateway */
	FLOW_STALLED = 64,  /* the daemon has been told so, and nothing has come in since */
	FLOW_CLOSED = 128,  /* its kernel hears of no window until what was in flight is acked, or it probes */
	FLOW_EMBRYONIC = 256, /* the SYN/ACK is out, and nobody has shown to have got it */
	FLOW_FIN_SEEN = 512, /* a FIN has come in whose end is `rcv_fin` */
	FLOW_STUCK = 1024,  /* what comes in is not taken; the daemon has been told so */
	FLOW_BOTH_WAYS = 2048, /* of a host: it leaves by where it comes in, and is kept there */
};

/* A TI flow.  The data plane creates and tracks it; the control plane changes it only through
 * the command program.
 *
 * What egress and what ingress write per packet lies apart, and is written only when it changes:
 * the two run on different CPUs, and a cache line that both write costs more than the program.
 */
struct flow {
	/* egress writes */
	seq snd_nxt;      /* end of the highest segment sent */
	seq rcv_nxt;      /* highest ACK sent: TIAck = rcv_nxt - irs - 1 */
	__u64 seen_out;   /* CLOCK_MONOTONIC, coarse, ns; last packet out */
	__u64 took_at;    /* its kernel has taken in what came: its last ACK of that */
	__u64 behind_since; /* the first of `behind` */
	__u64 resumed_at; /* data out after a pause, with nothing unanswered: an answer is due */
	__u64 resent_since; /* the first of `resent`; counts only if nothing has come in since */
	__u16 window_out; /* last one sent, unscaled */
	__u8 resent;      /* how often a timer has sent again, or probed */
	__u8 behind;      /* how often it has sent again what the peer has acknowledged */
	seq rcv_before;   /* end of all that came in by former wires, or rcv_nxt; counts once it has moved */

	/* from the handshakes */
	struct ti_open initiator;
	struct ti_open responder;
	seq iss;     /* ours */
	seq irs;     /* the peer's */
	__u64 created;
	__u16 mss_out;
	__u16 mss_in;
	__u8 role;       /* enum role */
	__u8 options;    /* enum negotiated, by both */
	__u8 wscale_out; /* of our SYN */
	__u8 wscale_in;  /* of the peer's SYN */

	/* rarely written, and then atomically */
	__u32 flags;  /* enum flow_flag */
	__u32 active; /* 0: not moved, kernel view = wire view; n: mapping[n - 1] counts */

	/* of the last move */
	__u32 moves;
	__u16 epoch; /* last committed; 0: none yet */
	__u8 next_hop[6]; /* of a VM's flow: where its guest sends the frames */
	__u32 outside;    /* ifindex by which it came in last; not of a VM's */
	__u64 moved_at;  /* ns */
	__u64 gap;       /* ns from the last packet in before it to the first after */
	__u64 gap_since; /* seen_in when it was committed; 0: the gap is over */
	__u64 frozen_until; /* ns: neither end is told of any window before that */
	struct mapping mapping[2];

	/* ingress writes */
	seq snd_una;     /* highest ACK received */
	seq rcv_max;     /* end of the highest segment received */
	__u64 seen_in;   /* last packet in */
	__u16 window_in; /* last one received, unscaled */
	__u16 window_in_max; /* the largest one: how old an ACK may be */
	seq rcv_fin;     /* counts with FLOW_FIN_SEEN */
	__u64 untaken_since; /* the first of `untaken`; counts only if it is after `took_at` */
	__u64 old_path_at;   /* the last one that was dropped as DROP_OLD_PATH */
	__u8 untaken;        /* segments with something new, to which its kernel has said nothing */
	__u8 pad4[3];
	seq knock;        /* what is asked whoever knocks at the old place: RST with this SEQ answers */
	__u64 knocked_at; /* the last SYN on the kernel tuple while the flow lives elsewhere */
};

enum place_flag {
	PLACE_AWAY = 1,   /* the guest's addresses are not those of this place: translate */
	PLACE_ANSWER = 2, /* answer for its addresses: it may not run yet */
};

/* Where a VM is, by the ifindex of its tap.  `inside`: what the guest believes its addresses to be,
 * for ever; `outside`: what it is called at this place.  IPv4: one address; IPv6: the first 64 bits,
 * the interface identifier stays.  ::  stands for none.  The daemon writes it, but for what is
 * marked as learned.
 */
struct place {
	struct address inside4;
	struct address outside4;
	struct address inside6;
	struct address outside6;
	struct address router6;               /* the guest's default router at home: link-local */
	struct address own6[GUEST_ADDRESSES]; /* learned: what the guest uses, but link-local */
	__u64 since;          /* ns: legacy connections from before have been cut off */
	__u8 guest_mac[6];    /* learned, if it was zero */
	__u8 gateway4_mac[6]; /* next hop at this place; zero: not known (yet) */
	__u8 gateway6_mac[6];
	__u8 flags;           /* enum place_flag */
	__u8 own6_next;
	__u8 pad[4];
};

enum wire_state {
	WIRE_SYNCING = 1, /* mover: SYN sent; everything that comes is for the daemon */
	WIRE_PENDING = 2, /* peer: SYN/ACK sent; a claim, which somebody else may be talking on */
	WIRE_ACTIVE = 3,
};

struct wire {
	struct tuple kernel;
	seq ack;    /* PENDING: what acknowledges our SYN/ACK, in wire view */
	__u8 state; /* enum wire_state */
	__u8 pad[3];
};

/* Why a connection is legacy, why a packet was dropped, what was worth counting.
 * Append only: numbers are labels of metrics.
 */
enum reason {
	REASON_NONE = 0,

	/* legacy: the connection is plain TCP */
	LEGACY_NO_ROOM,         /* no 20 bytes of option space left in the SYN */
	LEGACY_MPTCP,
	LEGACY_MD5,
	LEGACY_TCP_AO,
	LEGACY_FAST_OPEN,
	LEGACY_SYN_DATA,        /* SYN with payload */
	LEGACY_NO_HALVES,       /* out of random bytes: is the daemon running? */
	LEGACY_INNER,           /* the SYN carries TI_OPEN already: a boundary nearer to the program */
	LEGACY_PEER_PLAIN,      /* SYN/ACK without TI_OPEN, or SYN without it */
	LEGACY_SYN_LOST,        /* answered only after TI_OPEN was left out */
	LEGACY_PEER_REMEMBERED, /* TI_OPEN was lost on the way to this destination before */
	LEGACY_TABLE_FULL,
	LEGACY_MALFORMED,       /* options of the SYN or SYN/ACK do not parse */
	LEGACY_NO_PSK,          /* a pre-shared key is required and the peer has none in common */
	LEGACY_UNTRACKED,       /* older than the boundary */

	/* drops */
	DROP_HELD,
	DROP_PENDING,       /* follows our SYN/ACK on a wire that has not been confirmed */
	DROP_OLD_PATH,      /* from the kernel tuple of a flow that has moved: late, or a stranger */
	DROP_BELOW_BASE,    /* a segment that lies before the synchronization */
	DROP_ABOVE_SENT,    /* an ACK, from the wire, of what was never sent */
	DROP_FRAGMENT,      /* a fragment of a moved flow */
	DROP_REWRITE,       /* a helper failed halfway */
	DROP_MALFORMED,     /* a moved flow's packet whose headers lie */
	DROP_RST_QUARANTINE,
	DROP_EVENT_LOST,    /* for the daemon, but the ring buffer was full */
	DROP_SYNC,          /* TI_SYNC, TI_CONFIRM, TI_RST: consumed, handed to the daemon */
	DROP_TUPLE_IN_USE,  /* a new connection on the tuple of a flow's wire */

	/* counted only */
	COUNT_FLOW_OPENED,
	COUNT_FLOW_ENDED,
	COUNT_SACK_BLOCK_DROPPED,
	COUNT_ACK_CLAMPED,
	COUNT_ICMP_TRANSLATED,
	COUNT_OPTION_IGNORED, /* ours by kind and ExID, but not by version, subtype or length */

	/* of a VM that is not at home */
	DROP_FOREIGN,       /* of no meaning at this place, or to this guest */
	DROP_STRANDED,      /* of a legacy connection that stayed behind */
	DROP_NO_NEXT_HOP,   /* the gateway's hardware address is not known yet */
	COUNT_ANSWERED,     /* ARP or neighbour solicitation answered in the guest's stead, or to it */

	/* of a machine that forwards */
	LEGACY_FORWARDED,   /* of a host behind this one, and the interface is no gateway's */
	COUNT_END_TO_END,   /* a synchronization of a host behind this machine, which does it itself */

	DROP_ABOVE_WINDOW,  /* beyond what the synchronization's SYN/ACK allows, before it is proven */

	LEGACY_SIMULTANEOUS_OPEN, /* the SYNs of both ends have crossed */
	LEGACY_EVICTED,     /* its SYN/ACK had no answer for long, and others needed the room */

	COUNT_OVER_BUDGET, /* not told to the daemon: its sender has told it too much already */

	REASON_END,
};

/* A connection without a boundary at the far end, or without room for the option. */
struct plain {
	__u64 since;   /* CLOCK_MONOTONIC, ns */
	__u16 reason;  /* enum reason */
	__u8 pad[6];
};

/* A destination that did not answer SYNs with TI_OPEN, but one without. */
struct plain_peer {
	__u64 until;  /* CLOCK_MONOTONIC, ns */
	__u32 losses; /* connections one after the other to which that happened */
	__u8 pad[4];
};

/* Of what is told to the daemon, and whose it is: enum budget_kind says which number that is. */
struct budget_key {
	__u32 of;
	__u32 kind;
};

enum budget_kind {
	BUDGET_STRAY = 0,    /* synchronizations of nobody's flow; of all together */
	BUDGET_FLOW = 1,     /* SYNs that name a flow; of our half of its TIFID */
	BUDGET_WIRE = 2,     /* what comes on a wire; of its ports */
	BUDGET_GUEST = 3,    /* what a guest asks; of its tap, as all below */
	BUDGET_DHCP = 4,     /* what a server answers it */
	BUDGET_LAN = 5,      /* what its neighbours and routers say */
	BUDGET_STRANDED = 6, /* segments of legacy connections that stayed behind */
};

enum event_type {
	EVENT_PACKET = 1,  /* a packet for the synchronization agent */
	EVENT_OPENED = 2,  /* the handshake is through; no wake-up */
	EVENT_ENDED = 3,   /* FIN acknowledged both ways, or RST; no wake-up */
	EVENT_PROVEN = 4,  /* first packet on a new mapping */
	EVENT_RST = 5,     /* bare RST on a silent path, quarantined: `packet` holds it */
	EVENT_GUEST = 6,   /* DHCP, ARP or neighbour discovery that concerns a VM */
	EVENT_STRANDED = 7, /* a VM's segment of a legacy connection that stayed behind */
	EVENT_STALLED = 8,  /* its own TCP sends again or probes, and nothing comes back */
	EVENT_REVIVED = 9,  /* something has come in on a stalled flow, or was taken on a stuck one */
	EVENT_STUCK = 10,   /* what comes in on it is not taken by its kernel */
	EVENT_KNOCK = 11,   /* a SYN on the kernel tuple of a flow that lives elsewhere, or what answers `knock` */
	EVENT_IN_USE = 12,  /* a SYN of our own on the wire of a flow */
};

struct event {
	__u32 type;     /* enum event_type */
	__u32 ifindex;
	__u64 at;       /* CLOCK_MONOTONIC, ns */
	struct tuple tuple; /* PACKET: as on the wire; else the flow's kernel tuple */
	__u32 length;   /* of packet */
	__u16 ether_type; /* of packet */
	__u8 from_guest; /* GUEST: its own; else the network's */
	__u8 pad;
	__u8 packet[PACKET_MAX]; /* from behind the Ethernet header on */
};

enum verb {
	VERB_HOLD = 1,    /* swallow egress */
	VERB_RELEASE = 2,
	VERB_MAP = 3,     /* commit `mapping` with `epoch`; wire entries follow */
	VERB_FORGET = 4,  /* remove the flow and all that points to it */
	VERB_FREEZE = 5,  /* close both windows until `until`, or until it is released or moved */
	VERB_CLOSE = 6,   /* set FLOW_CLOSED */
	VERB_GO_ON = 7,   /* clear FLOW_RESET: its kernel has not believed the reset */
	VERB_LET_GO = 8,  /* clear FLOW_BOTH_WAYS: it leaves by its kernel's choice */
};

/* One change of a flow, done inside the kernel in one run, so that the death of the daemon
 * cannot leave half of it.
 */
struct command {
	__u32 verb; /* enum verb */
	__s32 result; /* 0 or -errno: -ENOENT no such flow, -ESTALE epoch not newer, -ENOSPC,
		       * -EINVAL a wire of another family or tap
		       */
	struct tuple kernel;
	struct mapping mapping;
	__u16 epoch;
	__u8 unproven; /* VERB_MAP: set FLOW_UNPROVEN */
	__u8 held;     /* VERB_MAP: stay held until VERB_RELEASE */
	__u8 pad[4];
	__u64 until;   /* VERB_FREEZE: CLOCK_MONOTONIC, ns */
	struct flow flow; /* out: as it was before the command */
};

/* One entry, written by the daemon, read by the programs. */
struct settings {
	__u32 abi_version;
	__u32 reserved;        /* was a mark for retained addresses: marks are everybody's */
	__u32 mark_guest;      /* on a tap: the daemon's own, for the guest */
	__u32 mark_network;    /* the daemon's own, as if guest or own kernel had sent it */
	__u32 mark_verbatim;   /* the same, but its addresses are outside ones already */
	__u32 rst_silent_ms;   /* a bare RST after so much silence is quarantined */
	__u32 plain_peer_ttl_s;
	__u8 enabled;          /* 0: no new flows, existing ones go on */
	__u8 key_id;           /* offered in TI_OPEN, and wanted in common; 0: none */
	__u8 pad[2];
	__u8 key_ids[32];      /* bitmap of the key ids that we hold */
};

_Static_assert(sizeof(struct tuple) == 40, "map key");
_Static_assert(sizeof(struct ti_open) == OPTION_OPEN_LENGTH, "option as on the wire");
_Static_assert(sizeof(struct half_open) == 56, "map value");
_Static_assert(sizeof(struct mapping) == 60, "part of struct flow");
_Static_assert(sizeof(struct flow) == 352, "map value");
_Static_assert(sizeof(struct wire) == 48, "map value");
_Static_assert(__builtin_offsetof(struct event, packet) == EVENT_HEAD, "ring buffer record");
_Static_assert(sizeof(struct event) == 704, "ring buffer record");
_Static_assert(sizeof(struct command) == 480, "context of boundary_command");
_Static_assert(sizeof(struct settings) == 64, "map value");
_Static_assert(sizeof(struct place) == 176, "map value");

#endif
