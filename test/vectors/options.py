"""The options of docs/PROTOCOL.md, sections 3 and 5: bytes, keys, MACs.  See generate.py."""

import hashlib
import hmac
import struct

# Section 3: container and options


def option(subtype, body):
    """A TCP option of ours: kind, length, ExID, version 1 and subtype, body."""
    return struct.pack("!BBHB", 253, 5 + len(body), 0x5449, 0x10 | subtype) + body


def ti_open(half, key_half, key_id=0, flags=0, reserved=0):
    return option(0, struct.pack("!BBB", flags, key_id, reserved) + half + key_half)


def ti_sync_unsigned(epoch, tifid, tiack, nonce):
    body = struct.pack("!H", epoch) + tifid + struct.pack("!I", tiack) + nonce
    return option(1, body + bytes(8))[:-8]


def ti_sync_ack_unsigned(epoch, tiack, nonce):
    return option(1, struct.pack("!HI", epoch, tiack) + nonce + bytes(16))[:-16]


def ti_confirm_unsigned(epoch):
    return option(2, struct.pack("!H", epoch) + bytes(16))[:-16]


def ti_rst_unsigned(reason, epoch):
    return option(3, struct.pack("!BH", reason, epoch) + bytes(8))[:-8]


# Section 5: keys and MACs


def mac(key, covered, length):
    return hmac.new(key, covered, hashlib.sha256).digest()[:length]


def derive(initiator_open, responder_open, psk):
    """K and the two direction keys; none if the options do not name the same pre-shared key."""
    key_id_initiator, key_id_responder = initiator_open[6], responder_open[6]
    if key_id_initiator != key_id_responder:
        return None
    used = psk is not None and key_id_initiator != 0
    root = mac(psk if used else bytes(32), b"TI1" + initiator_open + responder_open, 32)
    return {
        "root": root,
        "initiator": mac(root, b"TI1 initiator", 32),
        "responder": mac(root, b"TI1 responder", 32),
    }


def signed_options(keys, mover, epoch, tifid, tiack_mover, tiack_peer, nonces):
    """The options of one synchronization, each with what its MAC covers, in the order sent."""
    peer = "responder" if mover == "initiator" else "initiator"
    signed = {}

    def sign(name, sender, unsigned, length, before=b"", after=b""):
        covered = before + unsigned + after
        code = mac(keys[sender], covered, length)
        whole = unsigned + code
        signed[name] = {"sender": sender, "covered": covered, "mac": code, "option": whole}
        return whole

    syn = sign("SYN", mover, ti_sync_unsigned(epoch, tifid, tiack_mover, nonces[0]), 8)
    answer = ti_sync_ack_unsigned(epoch, tiack_peer, nonces[1])
    syn_ack = sign("SYN/ACK", peer, answer, 16, after=syn)
    sign("CONFIRM", mover, ti_confirm_unsigned(epoch), 16, before=syn + syn_ack)
    sign("TI_RST", peer, ti_rst_unsigned(1, epoch), 8)
    return signed
