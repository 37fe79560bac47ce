/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port for LiteX: a soft processor such as VexRiscv, whose data cache does not see what the
 * accelerator writes, and an L2 cache in front of the memory, which it does not see either. The
 * registers are plain memory outside the caches. Not needed with a coherent memory bus.
 *
 * LiteX empties the L2 cache by reading other memory over it. A read that hits the data cache would
 * not get there, so that cache goes first. It writes through, so to invalidate it loses nothing.
 */
#ifndef VITFORGE_PORT_LITEX_H
#define VITFORGE_PORT_LITEX_H

#include <generated/soc.h>
#include <system.h>

/* LiteX has flush_l2_cache only where there is an L2 cache. */
#ifdef CONFIG_L2_SIZE
#define VITFORGE_FLUSH_L2() flush_l2_cache()
#else
#define VITFORGE_FLUSH_L2() ((void)0)
#endif

/* The compiler must not move accesses over the flushes: they are no barriers to it. */
#define VITFORGE_COMPILER_BARRIER() __asm__ volatile("" : : : "memory")

#define VITFORGE_BEFORE_START() \
    do { \
        VITFORGE_COMPILER_BARRIER(); \
        flush_cpu_dcache(); \
        VITFORGE_FLUSH_L2(); \
        VITFORGE_COMPILER_BARRIER(); \
    } while (0)

/* Both are flushed as a whole: LiteX knows no flush of a part. */
#define VITFORGE_BEFORE_RESULTS(output, bytes) \
    do { \
        (void)(output); \
        (void)(bytes); \
        VITFORGE_BEFORE_START(); \
    } while (0)

#endif
