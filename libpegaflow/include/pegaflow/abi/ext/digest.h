/* SPDX-License-Identifier: Apache-2.0
 * digest.h - the digest of what a batch moves, computed while it moves.
 *
 * The digest of a page is the sum modulo 2^64, over its words i = 0, 1, ..., of
 *     y xor (y >> 32)   with   y = low(x) * high(x) + x   and   x = word[i] + (i + 1) * 0x9E3779B97F4A7C15   modulo 2^64,
 * where word[i] are its bytes 8 i to 8 i + 7 as a little-endian number, and low and high are the halves of 32 bits. Being a sum, it can
 * be computed in any order and in parts that are added. A change within one half of one word always changes it: from x to the
 * term, every step tells such words apart. It detects faults; it does not authenticate. The products are those of NH (J. Black,
 * S. Halevi, H. Krawczyk, T. Krovetz, P. Rogaway, "UMAC: Fast and Secure Message Authentication", CRYPTO 1999) with a Weyl
 * sequence for a key; the shift keeps changes of several words from cancelling. pegaflow/digest.hpp computes it on a
 * processor. */
#ifndef PEGAFLOW_ABI_EXT_DIGEST_H
#define PEGAFLOW_ABI_EXT_DIGEST_H

#include "pegaflow/abi/channel.h"

#define PEGA_OPTION_DIGEST 4u

#define PEGA_DIGEST_G UINT64_C(0x9E3779B97F4A7C15)

/* Batch option, always a hint, for PEGA_FORMAT_SPANS. The page of index i begins at byte remote_index[i] * remote_stride of the
 * remote region, so that a span's bytes of segment s lie at remote_base + s * remote_segment_stride of the page. The device that
 * can do it at no cost writes to sums[i] the sum over all words of page i that the batch moves, for every i below index_count,
 * and then 1 to *computed: both before the terminal completion with status OK, and only then. Otherwise *computed stays as it
 * is and sums hold nothing of use. Both are borrowed until the terminal completion. Nothing is computed unless every place in
 * a page and every length is a multiple of 8. */
typedef struct pega_digest_option {
    pega_batch_option base; /* kind = PEGA_OPTION_DIGEST, flags = PEGA_OPTION_HINT */
    uint64_t* sums;         /* index_count of them */
    uint32_t* computed;
} pega_digest_option;

#endif
