#!/usr/bin/env python3
"""Makes the test vectors of docs/PROTOCOL.md: options, keys, MACs, whole packets.

Written from the document alone, with the standard library and none of the project's code, so
that the project's code is checked by something that does not share its mistakes.

    generate.py           writes the JSON files next to this script
    generate.py --check   exit status 1 if a file is not what would be written

Hex in, hex out; numbers that are counted are decimal.
"""

import ipaddress
import json
import pathlib
import sys

sys.dont_write_bytecode = True

from options import derive, signed_options, ti_open
from packets import MODULUS, NOP, SACK_PERMITTED, WSCALE, described, icmp, mss
from packets import quoted_in_kernel_view, sack, timestamps

HERE = pathlib.Path(__file__).resolve().parent

# Fixed inputs, the same in all files

HALVES = {"initiator": bytes.fromhex("0a0b0c0d"), "responder": bytes.fromhex("1a1b1c1d")}
KEY_HALVES = {
    "initiator": bytes.fromhex("0102030405060708"),
    "responder": bytes.fromhex("1112131415161718"),
}
TIFID = HALVES["initiator"] + HALVES["responder"]
NONCES = (bytes.fromhex("5e5f6061"), bytes.fromhex("7e7f8081"))
PSK = bytes(range(0x20, 0x40))
KEY_ID = 7
# The initiator's stream wraps in kernel view, the mover's first SACK block on the wire.
ISS = {"initiator": 0xFFFFF000, "responder": 0x30000000}
WIRE_ISN_MOVER = 0xFFFFFA23
WIRE_ISN_PEER = 0x61626364
RECEIVED_OF = {"initiator": 5000, "responder": 100000}
TIMESTAMPS = {"initiator": 7000, "responder": 9000}

FAMILIES = {
    "ipv4": {
        "mss": 1460,
        "mtu": 1400,
        "router": "198.51.100.1",
        "initiator": "203.0.113.7",
        "responder": "192.0.2.10",
        "moved": {"initiator": "198.51.100.77", "responder": "198.51.100.10"},
    },
    "ipv6": {
        "mss": 1440,
        "mtu": 1400,
        "router": "2001:db8:b::1",
        "initiator": "2001:db8:c::7",
        "responder": "2001:db8:a::10",
        "moved": {"initiator": "2001:db8:b::77", "responder": "2001:db8:b::10"},
    },
}
PORTS = {"initiator": 40000, "responder": 22}
MOVED_PORT = 61234


def opens(key_id=0):
    return {side: ti_open(HALVES[side], KEY_HALVES[side], key_id) for side in HALVES}


def open_note(side, key_id):
    note = "ti-open %s key %s" % (HALVES[side].hex(), KEY_HALVES[side].hex())
    return note + (" key-id %d" % key_id if key_id else "")


# The files


def options_file():
    keys = derive(*opens().values(), None)
    signed = signed_options(keys, "responder", 1, TIFID, 5000, 100000, NONCES)
    rows = [
        ("TI_OPEN", "S", open_note("initiator", 0), opens()["initiator"]),
        ("TI_OPEN, all fields", "SA", open_note("responder", 7) + " flags 129 reserved 255",
         ti_open(HALVES["responder"], KEY_HALVES["responder"], 7, 129, 255)),
    ]
    titles = [
        ("SYN", "TI_SYNC on a SYN", "S"),
        ("SYN/ACK", "TI_SYNC on a SYN/ACK", "SA"),
        ("CONFIRM", "TI_CONFIRM", "A"),
        ("TI_RST", "TI_RST", "RA"),
    ]
    for name, title, flags in titles:
        note = sync_note(name, signed[name], 1, 5000, 100000)
        rows.append((title, flags, note, signed[name]["option"]))
    return [
        {"name": name, "flags": flags, "notation": note, "hex": data.hex()}
        for name, flags, note, data in rows
    ]


def sync_note(name, signed, epoch, tiack_mover, tiack_peer):
    code = signed["mac"].hex()
    return {
        "SYN": "ti-sync %s epoch %d tiack %d nonce %s mac %s"
        % (TIFID.hex(), epoch, tiack_mover, NONCES[0].hex(), code),
        "SYN/ACK": "ti-sync-ack epoch %d tiack %d nonce %s mac %s"
        % (epoch, tiack_peer, NONCES[1].hex(), code),
        "CONFIRM": "ti-confirm epoch %d mac %s" % (epoch, code),
        "TI_RST": "ti-rst reason 1 epoch %d mac %s" % (epoch, code),
    }[name]


def key_columns(keys):
    sides = ("root", "initiator", "responder")
    return {"key_" + side: keys[side].hex() if keys else None for side in sides}


def keys_file():
    mixed = {"initiator": opens(KEY_ID)["initiator"], "responder": opens(8)["responder"]}
    rows = [
        ("no pre-shared key", opens(), None),
        ("pre-shared key", opens(KEY_ID), PSK),
        ("both have one, but not the same", mixed, PSK),
        ("key-id 0 is none", opens(), PSK),
        ("only the initiator has one",
         {"initiator": opens(KEY_ID)["initiator"], "responder": opens()["responder"]}, PSK),
    ]
    return [
        {
            "name": name,
            "initiator_open": pair["initiator"].hex(),
            "responder_open": pair["responder"].hex(),
            "psk": psk.hex() if psk else None,
            **key_columns(derive(*pair.values(), psk)),
        }
        for name, pair, psk in rows
    ]


def macs_file():
    rows = []
    for mover, psk, key_id in (("responder", None, 0), ("initiator", PSK, KEY_ID)):
        keys = derive(*opens(key_id).values(), psk)
        epoch = 1 if mover == "responder" else 258
        tiacks = RECEIVED_OF["initiator"], RECEIVED_OF["responder"]
        tiacks = tiacks if mover == "responder" else tiacks[::-1]
        for name, signed in signed_options(keys, mover, epoch, TIFID, *tiacks, NONCES).items():
            rows.append({
                "name": "%s, the %s moves" % (name, mover),
                "sender": signed["sender"],
                "key": keys[signed["sender"]].hex(),
                "covered": signed["covered"].hex(),
                "mac": signed["mac"].hex(),
            })
    return rows


def set_up_file():
    rows = []
    for family, key_id in (("ipv4", 0), ("ipv6", KEY_ID)):
        place = FAMILIES[family]
        initiator = (place["initiator"], PORTS["initiator"])
        responder = (place["responder"], PORTS["responder"])
        common = {
            side: [mss(place["mss"]), SACK_PERMITTED, timestamps(TIMESTAMPS[side], 0), NOP, WSCALE]
            for side in HALVES
        }
        common["responder"][2] = timestamps(TIMESTAMPS["responder"], TIMESTAMPS["initiator"])
        offer = {side: (open_note(side, key_id), opens(key_id)[side]) for side in HALVES}
        syn = [initiator, responder, "S", ISS["initiator"], 0, 64240]
        syn_ack = [responder, initiator, "SA", ISS["responder"], ISS["initiator"] + 1, 65160]
        for name, side, fields in (("SYN", "initiator", syn), ("SYN/ACK", "responder", syn_ack)):
            rows.append({
                "name": "%s, %s" % (name, family),
                "kernel": described(*fields, common[side]),
                "wire": described(*fields, common[side] + [offer[side]]),
            })
    return rows


def with_room(options, option):
    """Section 4.4: the option list with `option` behind it; None: there is no room."""
    kept, at = [], 0
    while at < len(options) and options[at] != 0:
        length = 1 if options[at] == 1 else options[at + 1]
        kept.append(options[at:at + length])
        at += length
    padding = len(options) - at
    if padding <= 3 and len(options) + len(option) <= 40:
        return options[:at] + bytes([1]) * padding + option
    if b"\1\1\1\1" in b"".join(each if each[0] == 1 else b"-" for each in kept):
        return None
    squeezed = b"".join(each for each in kept if each[0] != 1)
    squeezed += bytes([1]) * (-len(squeezed) % 4)
    return squeezed + option if len(squeezed) + len(option) <= 40 else None


def room_file():
    seen = (
        ("SYN of Linux", "S", "020405b4 0402 080a0102030400000000 01 030307"),
        ("SYN of macOS and iOS", "S", "020405b4 01 030306 0101 080a0102030400000000 0402 0000"),
        ("SYN of FreeBSD", "S", "020405b4 01 030306 0402 080a0102030400000000"),
        ("SYN with two bytes of end-of-list", "S", "020405b4 01 030306 0402 0000"),
        ("SYN with four bytes of end-of-list", "S", "020405b4 00000000"),
        ("SYN with nothing but padding", "S", "0101010101010101 00000000"),
        ("SYN of a probe, which is to leave as it is", "S",
         "020405b4 0402 080a0102030400000000 01 030307 01010101"),
        ("SYN with three NOPs at a time", "S",
         "020405b4 010101 030307 010101 0402 010101 080a0102030400000000"),
        ("SYN with what looks like options behind the end-of-list", "S",
         "020405b4 00fd1454 4910000000112233445566778899aabb"),
        ("SYN with 24 bytes that all mean something", "S",
         "020405b4 0402 080a0102030400000000 030307 01 fc04aabb"),
        ("SYN/ACK with AccECN", "SA", "020405b4 01010402 01030307 ac0b000001000001000001 01"),
        ("SYN/ACK with AccECN and timestamps", "SA",
         "020405b4 0402 080a0102030401020304 01030307 ac0b000001000001000001 01"),
    )
    rows = []
    for name, flags, before in seen:
        after = with_room(bytes.fromhex(before), opens()["initiator"])
        rows.append({
            "name": name,
            "flags": flags,
            "before": before.replace(" ", ""),
            "after": after and after.hex(),
        })
    return rows


def synchronization(family, mover, psk, key_id, epoch):
    place = FAMILIES[family]
    peer = "responder" if mover == "initiator" else "initiator"
    keys = derive(*opens(key_id).values(), psk)
    tiack_mover, tiack_peer = RECEIVED_OF[peer], RECEIVED_OF[mover]
    signed = signed_options(keys, mover, epoch, TIFID, tiack_mover, tiack_peer, NONCES)
    note = {name: sync_note(name, signed[name], epoch, tiack_mover, tiack_peer) for name in signed}
    carried = {name: (note[name], signed[name]["option"]) for name in signed}
    kernel_mover = (place[mover], PORTS[mover])
    wire_mover = (place["moved"][mover], MOVED_PORT)
    target = (place[peer], PORTS[peer])
    base = [mss(place["mss"]), SACK_PERMITTED, WSCALE]
    isn_m, isn_p = WIRE_ISN_MOVER, WIRE_ISN_PEER
    to_peer, to_mover = (wire_mover, target), (target, wire_mover)
    syn_options, syn_ack_options = base + [carried["SYN"]], base + [carried["SYN/ACK"]]
    packets = {
        "SYN": described(*to_peer, "S", isn_m, 0, 65535, syn_options),
        "SYN/ACK": described(*to_mover, "SA", isn_p, isn_m + 1, 65535, syn_ack_options),
        "CONFIRM": described(*to_peer, "A", isn_m + 1, isn_p + 1, 502, [carried["CONFIRM"]]),
        "ACK": described(*to_mover, "A", isn_p + 1, isn_m + 1, 501),
        "TI_RST": described(*to_mover, "RA", 0, isn_m + 1, 0, [carried["TI_RST"]]),
        "RST": described(*to_mover, "RA", 0, isn_m + 1, 0),
    }
    deltas = {
        "mover": {
            "snd_delta": (isn_m - tiack_peer - ISS[mover]) % MODULUS,
            "rcv_delta": (isn_p - tiack_mover - ISS[peer]) % MODULUS,
            "snd_base": (ISS[mover] + 1 + tiack_peer) % MODULUS,
            "rcv_base": (ISS[peer] + 1 + tiack_mover) % MODULUS,
        },
        "peer": {
            "snd_delta": (isn_p - tiack_mover - ISS[peer]) % MODULUS,
            "rcv_delta": (isn_m - tiack_peer - ISS[mover]) % MODULUS,
            "snd_base": (ISS[peer] + 1 + tiack_mover) % MODULUS,
            "rcv_base": (ISS[mover] + 1 + tiack_peer) % MODULUS,
        },
    }
    data = data_packets(mover, peer, kernel_mover, wire_mover, target)
    return {
        "name": "the %s moves, %s, %s" % (mover, family, "PSK" if psk else "no PSK"),
        "family": family,
        "mover": mover,
        "psk": psk.hex() if psk else None,
        "initiator_open": opens(key_id)["initiator"].hex(),
        "responder_open": opens(key_id)["responder"].hex(),
        "iss_initiator": ISS["initiator"],
        "iss_responder": ISS["responder"],
        "epoch": epoch,
        "tiack_mover": tiack_mover,
        "tiack_peer": tiack_peer,
        "wire_isn_mover": isn_m,
        "wire_isn_peer": isn_p,
        "nonce_mover": NONCES[0].hex(),
        "nonce_peer": NONCES[1].hex(),
        "deltas": deltas,
        "packets": [{"name": name, **row} for name, row in packets.items()],
        "data": data,
        "icmp": [too_big(place["router"], place["mtu"], data[0])],
    }


def data_packets(mover, peer, kernel_mover, wire_mover, target):
    """Data packets in kernel view, the same at both ends, and as they are on the new wire."""
    kernel_isn = {mover: ISS[mover], peer: ISS[peer]}
    # An offset in the stream on the wire: section 6, base is what the other side has.
    wire_isn = {mover: WIRE_ISN_MOVER - RECEIVED_OF[mover], peer: WIRE_ISN_PEER - RECEIVED_OF[peer]}

    def both(name, sender, offset, ack_offset, extra, payload):
        receiver = peer if sender == mover else mover
        stamp = timestamps(TIMESTAMPS[sender] + 50, TIMESTAMPS[receiver] + 40)
        views = {"kernel": (kernel_isn, kernel_mover), "wire": (wire_isn, wire_mover)}
        for view, (isn, mover_end) in views.items():
            ends = (mover_end, target) if sender == mover else (target, mover_end)
            seq, ack = isn[sender] + 1 + offset, isn[receiver] + 1 + ack_offset
            options = [NOP, NOP, stamp]
            for start, end in extra:
                options += [NOP, NOP, sack(isn[receiver] + 1 + start, isn[receiver] + 1 + end)]
            flags = "PA" if payload else "A"
            views[view] = described(*ends, flags, seq, ack, 500, options, payload)
        return {"name": name, "sender": "mover" if sender == mover else "peer", **views}

    sent_mover, sent_peer = RECEIVED_OF[mover], RECEIVED_OF[peer]
    return [
        both("first data after the move", mover, sent_mover, sent_peer, [], b"moved\n"),
        both("answer", peer, sent_peer, sent_mover + 6, [], b"so I see\n"),
        both("SACK across 2^32 on the wire", peer, sent_peer + 9, sent_mover + 6,
             [(sent_mover + 1000, sent_mover + 2000)], b""),
    ]


def too_big(router, mtu, sent):
    """A router of the new path says that the mover's packet is too big for the next link."""
    wire, kernel = bytes.fromhex(sent["wire"]["hex"]), bytes.fromhex(sent["kernel"]["hex"])
    source = ipaddress.ip_address(router).packed
    if len(source) == 16:
        kind, code, at, quoted = 2, 0, slice(8, 24), wire
    else:
        kind, code, at, quoted = 3, 4, slice(12, 16), wire[:28]
    translated = quoted_in_kernel_view(quoted, kernel)
    return {
        "name": "packet too big for the mover, next hop MTU %d" % mtu,
        "wire": icmp(source, wire[at], kind, code, mtu, quoted).hex(),
        "kernel": icmp(source, kernel[at], kind, code, mtu, translated).hex(),
    }


def synchronization_file():
    return [
        synchronization("ipv4", "responder", None, 0, 1),
        synchronization("ipv6", "responder", None, 0, 1),
        synchronization("ipv4", "initiator", PSK, KEY_ID, 258),
        synchronization("ipv6", "initiator", PSK, KEY_ID, 258),
    ]


FILES = {
    "options.json": options_file,
    "keys.json": keys_file,
    "macs.json": macs_file,
    "set-up.json": set_up_file,
    "room.json": room_file,
    "synchronization.json": synchronization_file,
}


def main():
    different = []
    for name, make in FILES.items():
        text = json.dumps(make(), indent=2) + "\n"
        path = HERE / name
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            different.append(name)
    if different:
        sys.exit("not what generate.py makes: " + ", ".join(different))


if __name__ == "__main__":
    main()
