/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Incremental checksums (RFC 1624) by the kernel's helpers, which know whether a checksum is
 * partial (only the pseudo-header counts now), complete or final.
 */
#ifndef TIFLOW_CHECKSUM_H
#define TIFLOW_CHECKSUM_H

#include "packet.h"

/* Linux 6.16 and stable kernels since: without it, changing an address of an IPv6 packet spoils
 * CHECKSUM_COMPLETE, because IPv6 has no header checksum that would make up for it.  Older
 * kernels answer -EINVAL to an unknown flag.
 */
#ifndef BPF_F_IPV6
#define BPF_F_IPV6 (1ULL << 7)
#endif

/* RFC 1071: a sum as bpf_csum_diff leaves it, as a checksum field has it. */
static __always_inline __be16 checksum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* UDP: a checksum of zero stands for none, and stays (RFC 768; IPv6: RFC 6935); what comes out as
 * zero is written as 0xffff.
 */
static __always_inline int checksum_replace_addresses(struct __sk_buff *skb,
						      const struct packet *p, __u32 at, __s64 sum)
{
	__u64 flags = BPF_F_PSEUDO_HDR |
		      (p->transport == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);

	if (p->ipv6 && !bpf_l4_csum_replace(skb, at, 0, sum, flags | BPF_F_IPV6))
		return 0;
	return bpf_l4_csum_replace(skb, at, 0, sum, flags);
}

#endif
