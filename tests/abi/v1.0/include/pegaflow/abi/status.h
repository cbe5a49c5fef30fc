/* SPDX-License-Identifier: Apache-2.0
 * status.h - what happened, said as what the caller should do next.
 *
 * Zero is success, one is "not finished", negative values are failures. A value never changes its meaning and is
 * never reused. The native code of the layer below (CUresult, errno, ...) travels beside it, for people. */
#ifndef PEGAFLOW_ABI_STATUS_H
#define PEGAFLOW_ABI_STATUS_H

#include <stdint.h>

typedef int32_t pega_status;

#define PEGA_OK 0                  /* done */
#define PEGA_PENDING 1             /* accepted or under way: ask again later */
#define PEGA_RETRY (-1)            /* nothing is broken: try again on the same path */
#define PEGA_QUEUE_FULL (-2)       /* nothing started: poll completions, then submit again */
#define PEGA_RETRY_OTHER_PATH (-3) /* this channel is broken, the peer may be reachable by another */
#define PEGA_PEER_LOST (-4)        /* the peer is gone: open a new channel or give up */
#define PEGA_REGION_LOST (-5)      /* the memory behind a region is gone: register or import again */
#define PEGA_INVALID (-6)          /* the arguments are wrong: the call can never succeed as it is */
#define PEGA_UNSUPPORTED (-7)      /* valid, but not offered here */
#define PEGA_NO_MEMORY (-8)        /* memory or another resource ran out */
#define PEGA_CANCELED (-9)         /* ended early on request, at its deadline, or by close */
#define PEGA_CORRUPT (-10)         /* bytes or a descriptor are not what they claim to be */

#endif
