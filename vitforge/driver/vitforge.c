/* SPDX-License-Identifier: Apache-2.0 */
#include "vitforge.h"

#include <string.h>

#include "vitforge_port.h"

#define ALIGNMENT 64u

#define FIELD(value, name) (((value) & VITFORGE_##name##_MASK) >> VITFORGE_##name##_SHIFT)

static uint32_t get(const struct vitforge *device, uint32_t offset)
{
    return VITFORGE_READ32(device->registers, offset);
}

static void put(const struct vitforge *device, uint32_t offset, uint32_t value)
{
    VITFORGE_WRITE32(device->registers, offset, value);
}

static int is_busy(const struct vitforge *device)
{
    return (get(device, VITFORGE_STATUS_OFFSET) & VITFORGE_STATUS_BUSY_MASK) != 0;
}

int vitforge_probe(struct vitforge *device, volatile uint32_t *registers, uint32_t config_hash,
                   struct vitforge_capability *capability)
{
    uint32_t hash, sizes;

    if (device == NULL || registers == NULL)
        return VITFORGE_INVALID;
    device->registers = registers;
    device->wait = NULL;
    device->context = NULL;
    if (get(device, VITFORGE_ID_OFFSET) != VITFORGE_ID_RESET)
        return VITFORGE_NO_DEVICE;
    if (FIELD(get(device, VITFORGE_VERSION_OFFSET), VERSION_MAJOR) != VITFORGE_VERSION_MAJOR)
        return VITFORGE_WRONG_VERSION;
    hash = get(device, VITFORGE_CONFIG_HASH_OFFSET);
    if (capability != NULL) {
        sizes = get(device, VITFORGE_CAPABILITY_OFFSET);
        capability->config_hash = hash;
        capability->rows = FIELD(sizes, CAPABILITY_ROWS);
        capability->cols = FIELD(sizes, CAPABILITY_COLS);
        capability->lanes = FIELD(sizes, CAPABILITY_LANES);
        capability->axi_bytes = FIELD(sizes, CAPABILITY_AXI_BYTES);
    }
    if (config_hash != 0 && hash != config_hash)
        return VITFORGE_WRONG_CONFIG;
    vitforge_enable_interrupts(device, 0);
    return VITFORGE_OK;
}

static int is_buffer(uint32_t address, uint32_t bytes)
{
    /* Both are multiples of 64, so a buffer up to the end of the address space is not refused. */
    return address % ALIGNMENT == 0 && bytes % ALIGNMENT == 0 &&
           (bytes == 0 || address <= UINT32_MAX - (bytes - 1));
}

int vitforge_load(const struct vitforge *device, const struct vitforge_buffers *buffers)
{
    const struct {
        uint32_t offset, value;
    } writes[] = {
        {VITFORGE_PROGRAM_ADDRESS_OFFSET, buffers->program_address},
        {VITFORGE_PROGRAM_BYTES_OFFSET, buffers->program_bytes},
        {VITFORGE_INPUT_ADDRESS_OFFSET, buffers->input_address},
        {VITFORGE_INPUT_BYTES_OFFSET, buffers->input_bytes},
        {VITFORGE_OUTPUT_ADDRESS_OFFSET, buffers->output_address},
        {VITFORGE_OUTPUT_BYTES_OFFSET, buffers->output_bytes},
    };
    size_t i;

    if (!is_buffer(buffers->program_address, buffers->program_bytes) ||
        !is_buffer(buffers->input_address, buffers->input_bytes) ||
        !is_buffer(buffers->output_address, buffers->output_bytes) ||
        buffers->program_bytes == 0)
        return VITFORGE_INVALID;
    if (is_busy(device))
        return VITFORGE_BUSY;
    for (i = 0; i < sizeof writes / sizeof writes[0]; i++)
        put(device, writes[i].offset, writes[i].value);
    /* Many processors don't tell a program that a write was refused. */
    for (i = 0; i < sizeof writes / sizeof writes[0]; i++)
        if (get(device, writes[i].offset) != writes[i].value)
            return VITFORGE_REFUSED;
    return VITFORGE_OK;
}

int vitforge_start(const struct vitforge *device)
{
    if (is_busy(device))
        return VITFORGE_BUSY;
    /* An interrupt of an earlier run must not be taken for one of this run. */
    vitforge_acknowledge(device);
    VITFORGE_BEFORE_START();
    put(device, VITFORGE_CONTROL_OFFSET, VITFORGE_CONTROL_START_MASK);
    return VITFORGE_OK;
}

int vitforge_poll(const struct vitforge *device)
{
    uint32_t status = get(device, VITFORGE_STATUS_OFFSET);

    if (status & VITFORGE_STATUS_BUSY_MASK)
        return VITFORGE_BUSY;
    if (status & VITFORGE_STATUS_FAULT_MASK)
        return VITFORGE_FAULTED;
    if (status & VITFORGE_STATUS_DONE_MASK)
        return VITFORGE_OK;
    return VITFORGE_IDLE;
}

int vitforge_wait(const struct vitforge *device, uint32_t polls)
{
    int result;

    for (; polls > 0; polls--) {
        result = vitforge_poll(device);
        if (result != VITFORGE_BUSY)
            return result;
        if (polls > 1 && device->wait != NULL && device->wait(device->context) != 0)
            break;
    }
    return VITFORGE_TIMEOUT;
}

void vitforge_stop(const struct vitforge *device)
{
    put(device, VITFORGE_CONTROL_OFFSET, VITFORGE_CONTROL_STOP_MASK);
}

/* The accelerator is little-endian; the processor may be anything. */
static int32_t word_at(const volatile unsigned char *byte)
{
    uint32_t word = (uint32_t)byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 |
                    (uint32_t)byte[3] << 24;
    int32_t value;

    memcpy(&value, &word, sizeof value);
    return value;
}

int vitforge_read_logits(const struct vitforge *device, const volatile void *output,
                         int32_t *logits, size_t count)
{
    const volatile unsigned char *line = output;
    uint32_t bytes, cols, pitch;
    size_t i;
    int result = vitforge_poll(device);

    if (result != VITFORGE_OK)
        return result;
    bytes = get(device, VITFORGE_OUTPUT_BYTES_OFFSET);
    cols = FIELD(get(device, VITFORGE_CAPABILITY_OFFSET), CAPABILITY_COLS);
    /* A pass of the head writes `cols` results, and begins a line. */
    pitch = (cols * 4u + ALIGNMENT - 1u) / ALIGNMENT * ALIGNMENT;
    if (cols == 0 || count / cols + (count % cols != 0) > bytes / pitch)
        return VITFORGE_INVALID;
    VITFORGE_BEFORE_RESULTS(output, bytes);
    for (i = 0; i < count; i++)
        logits[i] = word_at(line + i / cols * pitch + i % cols * 4u);
    return VITFORGE_OK;
}

void vitforge_fault(const struct vitforge *device, struct vitforge_fault_report *report)
{
    report->kind = FIELD(get(device, VITFORGE_FAULT_OFFSET), FAULT_KIND);
    report->instruction = get(device, VITFORGE_FAULT_INSTRUCTION_OFFSET);
    report->address = get(device, VITFORGE_FAULT_ADDRESS_OFFSET);
}

const char *vitforge_fault_name(uint32_t kind)
{
    static const char *const names[] = VITFORGE_FAULT_KIND_NAMES;

    return kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

/* The lower half first: reading it keeps the upper half. */
static uint64_t counter(const struct vitforge *device, uint32_t low, uint32_t high)
{
    uint64_t value = get(device, low);

    return value | (uint64_t)get(device, high) << 32;
}

#define COUNTER(device, name) \
    counter((device), VITFORGE_##name##_LOW_OFFSET, VITFORGE_##name##_HIGH_OFFSET)

void vitforge_counters(const struct vitforge *device, struct vitforge_counters *counters)
{
    counters->cycles = COUNTER(device, CYCLES);
    counters->array_busy = COUNTER(device, ARRAY_BUSY);
    counters->weight_wait = COUNTER(device, WEIGHT_WAIT);
    counters->memory_wait = COUNTER(device, MEMORY_WAIT);
    counters->norm_wait = COUNTER(device, NORM_WAIT);
    counters->softmax_wait = COUNTER(device, SOFTMAX_WAIT);
    counters->drain_wait = COUNTER(device, DRAIN_WAIT);
    counters->instructions = COUNTER(device, INSTRUCTIONS);
}

void vitforge_enable_interrupts(const struct vitforge *device, uint32_t mask)
{
    put(device, VITFORGE_IRQ_ENABLE_OFFSET, mask);
}

uint32_t vitforge_acknowledge(const struct vitforge *device)
{
    uint32_t events = get(device, VITFORGE_IRQ_STATUS_OFFSET);

    /* Only those that were seen: what comes between stays for the next call. */
    put(device, VITFORGE_IRQ_STATUS_OFFSET, events);
    return events;
}
