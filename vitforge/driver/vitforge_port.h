/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What depends on the platform; what is here is for a processor whose caches see the memory bus,
 * or that has none. Compile with -DVITFORGE_PORT='"my_port.h"' to use another file; it
 * defines what it wants to replace:
 *
 * VITFORGE_READ32(registers, offset), VITFORGE_WRITE32(registers, offset, value)
 *     access a register; the offset is in bytes
 * VITFORGE_BEFORE_START()
 *     what was written to memory reaches it before the accelerator starts: a barrier; clean the
 *     cache here where the memory bus does not see it
 * VITFORGE_BEFORE_RESULTS(output, bytes)
 *     results in memory are seen from now on: a barrier; invalidate the cache here. `bytes` is the
 *     size of the whole output buffer
 */
#ifndef VITFORGE_PORT_H
#define VITFORGE_PORT_H

#ifdef VITFORGE_PORT
#include VITFORGE_PORT
#endif

#ifndef VITFORGE_READ32
#define VITFORGE_READ32(registers, offset) ((registers)[(offset) / 4u])
#endif

#ifndef VITFORGE_WRITE32
#define VITFORGE_WRITE32(registers, offset, value) ((registers)[(offset) / 4u] = (value))
#endif

#if !defined(VITFORGE_BEFORE_START) || !defined(VITFORGE_BEFORE_RESULTS)
#if !defined(__GNUC__)
#error "no barrier is known for this compiler: give a VITFORGE_PORT"
#endif
#endif

#ifndef VITFORGE_BEFORE_START
#define VITFORGE_BEFORE_START() __sync_synchronize()
#endif

#ifndef VITFORGE_BEFORE_RESULTS
#define VITFORGE_BEFORE_RESULTS(output, bytes) __sync_synchronize()
#endif

#endif
