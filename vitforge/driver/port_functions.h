/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port with functions for the registers: for a simulator, a debug link, or a bus that is reached
 * through an operating system. The program defines them; `registers` is what it gave to
 * vitforge_probe.
 */
#ifndef VITFORGE_PORT_FUNCTIONS_H
#define VITFORGE_PORT_FUNCTIONS_H

#include <stdint.h>

uint32_t vitforge_bus_read(volatile uint32_t *registers, uint32_t offset);
void vitforge_bus_write(volatile uint32_t *registers, uint32_t offset, uint32_t value);

#define VITFORGE_READ32(registers, offset) vitforge_bus_read((registers), (offset))
#define VITFORGE_WRITE32(registers, offset, value) \
    vitforge_bus_write((registers), (offset), (value))

#endif
