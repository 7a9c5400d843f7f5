"""IPv4 and IPv6 packets, their one-line notation, ICMP errors.  See generate.py."""

import ipaddress
import struct

MODULUS = 2**32


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


FLAG_BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


def packet(source, destination, flags, seq, ack, window, options=b"", payload=b""):
    """An IPv4 or IPv6 packet; an endpoint is (address text, port)."""
    options += b"\0" * (-len(options) % 4)
    bits = sum(FLAG_BITS[letter] for letter in flags)
    doff = (20 + len(options)) // 4
    numbers = [seq % MODULUS, ack % MODULUS]
    header = [source[1], destination[1], *numbers, doff << 12 | bits, window, 0, 0]
    source_bytes = ipaddress.ip_address(source[0]).packed
    destination_bytes = ipaddress.ip_address(destination[0]).packed
    length = 20 + len(options) + len(payload)
    if len(source_bytes) == 4:
        pseudo = source_bytes + destination_bytes + struct.pack("!BBH", 0, 6, length)
    else:
        pseudo = source_bytes + destination_bytes + struct.pack("!II", length, 6)
    tcp = struct.pack("!HHIIHHHH", *header) + options + payload
    header[6] = checksum(pseudo + tcp)
    tcp = struct.pack("!HHIIHHHH", *header) + options + payload
    if len(source_bytes) == 16:
        return struct.pack("!IHBB", 6 << 28, length, 6, 64) + source_bytes + destination_bytes + tcp
    ip = [0x45, 0, 20 + length, 0, 0x4000, 64, 6, 0]
    ip[7] = checksum(struct.pack("!BBHHHBBH", *ip) + source_bytes + destination_bytes)
    return struct.pack("!BBHHHBBH", *ip) + source_bytes + destination_bytes + tcp


def line(flags, seq, ack, window, notes, length=0):
    """The packet as one line of the notation; `notes` are its options in that notation."""
    seq %= MODULUS
    acks = " ack %d" % (ack % MODULUS) if "A" in flags else ""
    listed = " <%s>" % ",".join(notes) if notes else ""
    end = (seq + length) % MODULUS
    return "%-2s %d:%d(%d)%s win %d%s" % (flags, seq, end, length, acks, window, listed)


def described(source, destination, flags, seq, ack, window, options=(), payload=b""):
    """Line and hex of a packet; an option is (notation, bytes)."""
    notes = [note for note, _ in options]
    encoded = b"".join(data for _, data in options)
    return {
        "line": line(flags, seq, ack, window, notes, len(payload)),
        "hex": packet(source, destination, flags, seq, ack, window, encoded, payload).hex(),
    }


def mss(value):
    return ("mss %d" % value, struct.pack("!BBH", 2, 4, value))


def timestamps(value, echo):
    return ("TS val %d ecr %d" % (value, echo), struct.pack("!BBII", 8, 10, value, echo))


def sack(start, end):
    start, end = start % MODULUS, end % MODULUS
    return ("sack %d:%d" % (start, end), struct.pack("!BBII", 5, 10, start, end))


SACK_PERMITTED = ("sackOK", bytes([4, 2]))
WSCALE = ("wscale 7", bytes([3, 3, 7]))
NOP = ("nop", b"\1")


def quoted_in_kernel_view(wire, kernel):
    """The quoted start of a packet with addresses, ports and SEQ of the other view, no more."""
    if wire[0] >> 4 == 6:
        return wire[:8] + kernel[8:48] + wire[48:]
    return wire[:10] + kernel[10:28] + wire[28:]


def icmp(source, destination, kind, code, rest, quoted):
    """An ICMP error, from the IP header on; addresses as bytes."""
    message = struct.pack("!BBHI", kind, code, 0, rest) + quoted
    if len(source) == 16:
        pseudo = source + destination + struct.pack("!II", len(message), 58)
        ip = struct.pack("!IHBB", 6 << 28, len(message), 58, 64)
    else:
        pseudo = b""
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0x4000, 64, 1, 0)
        sum_ip = struct.pack("!H", checksum(ip + source + destination))
        ip = ip[:10] + sum_ip
    sum_icmp = struct.pack("!H", checksum(pseudo + message))
    return ip + source + destination + message[:2] + sum_icmp + message[4:]
