/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Driver of the ViTForge accelerator: C99, no allocation, no global state, no operating system.
 *
 * Its only need is vitforge_registers.h, which `python -m gen.verilog` and `python -m gen.registers`
 * write. How registers are reached is in vitforge_port.h. All addresses are those that the
 * accelerator uses on its memory bus. A struct vitforge is used by one thread at a time; only
 * vitforge_acknowledge may interrupt the other functions.
 */
#ifndef VITFORGE_H
#define VITFORGE_H

#include <stddef.h>
#include <stdint.h>

#include "vitforge_registers.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a function answers; everything below 0 is an error. */
enum vitforge_result {
    VITFORGE_OK = 0,
    VITFORGE_BUSY = 1,            /* a run is under way */
    VITFORGE_IDLE = 2,            /* no run since the reset */
    VITFORGE_FAULTED = -1,        /* the run ended early: vitforge_fault says why */
    VITFORGE_TIMEOUT = -2,        /* still busy after the last poll */
    VITFORGE_NO_DEVICE = -3,      /* no accelerator at this address */
    VITFORGE_WRONG_VERSION = -4,  /* registers or programs of another major version */
    VITFORGE_WRONG_CONFIG = -5,   /* not the configuration that was expected */
    VITFORGE_INVALID = -6,        /* an argument is not possible; nothing was written */
    VITFORGE_REFUSED = -7         /* a register did not take its value */
};

/*
 * Called between two polls: to do other work, to sleep, or to wait for the interrupt. Returns 0 to
 * go on, something else to give up (vitforge_wait then returns VITFORGE_TIMEOUT).
 */
typedef int (*vitforge_wait_hook)(void *context);

struct vitforge {
    volatile uint32_t *registers; /* where the registers are, in the program's address space */
    vitforge_wait_hook wait;      /* or NULL: poll without a pause */
    void *context;                /* handed to wait */
};

struct vitforge_capability {
    uint32_t config_hash;
    uint32_t rows, cols, lanes;
    uint32_t axi_bytes;
};

/* Addresses and sizes in bytes: multiples of 64, and no buffer beyond 4 GiB. */
struct vitforge_buffers {
    uint32_t program_address, program_bytes; /* as compiled; not empty */
    uint32_t input_address, input_bytes;
    uint32_t output_address, output_bytes;
};

struct vitforge_fault_report {
    uint32_t kind;        /* enum vitforge_fault_kind */
    uint32_t instruction; /* index in the program, from 0 */
    uint32_t address;     /* of the transfer, the buffer or the field; 0 if there is none */
};

struct vitforge_counters {
    uint64_t cycles, array_busy, weight_wait, memory_wait, norm_wait, softmax_wait, drain_wait;
    uint64_t instructions;
};

/*
 * Look for the accelerator at `registers`, and begin to use it: all interrupts off. Fills in
 * `device`; a wait hook is set by the caller afterwards. `config_hash` is the expected
 * configuration, 0 for any; `capability` may be NULL.
 * Returns OK, INVALID, NO_DEVICE, WRONG_VERSION or WRONG_CONFIG.
 */
int vitforge_probe(struct vitforge *device, volatile uint32_t *registers, uint32_t config_hash,
                   struct vitforge_capability *capability);

/* Set the buffers of the runs to come. Returns OK, INVALID, BUSY or REFUSED. */
int vitforge_load(const struct vitforge *device, const struct vitforge_buffers *buffers);

/* Start a run; what the program wrote to memory before is seen by it. Returns OK or BUSY. */
int vitforge_start(const struct vitforge *device);

/* Look once. Returns OK if the last run is done, else BUSY, FAULTED or IDLE. */
int vitforge_poll(const struct vitforge *device);

/*
 * Poll until the run has ended, `polls` times at most, with the wait hook between two.
 * Returns as vitforge_poll, or TIMEOUT: then the run is still under way.
 */
int vitforge_wait(const struct vitforge *device, uint32_t polls);

/*
 * Ask for an early end, which comes when the bus is quiet: wait for it. Does nothing without a run.
 */
void vitforge_stop(const struct vitforge *device);

/*
 * Copy the first `count` logits of a run that is done from the output buffer, which the processor
 * sees at `output`. Every `cols` of them begin a line of 64 bytes there; what is left of a line is
 * skipped. Returns OK, INVALID (beyond the buffer), or what vitforge_poll returns if the run is not
 * done.
 */
int vitforge_read_logits(const struct vitforge *device, const volatile void *output,
                         int32_t *logits, size_t count);

/* Say why the last run ended early; all 0 if it did not. */
void vitforge_fault(const struct vitforge *device, struct vitforge_fault_report *report);

/* Return the name of a kind of fault, "unknown" for a number without one. */
const char *vitforge_fault_name(uint32_t kind);

/* Read the counters of the last run. During a run they are of different moments. */
void vitforge_counters(const struct vitforge *device, struct vitforge_counters *counters);

/* Choose the interrupts: VITFORGE_IRQ_ENABLE_DONE_MASK, VITFORGE_IRQ_ENABLE_FAULT_MASK, 0. */
void vitforge_enable_interrupts(const struct vitforge *device, uint32_t mask);

/*
 * For the interrupt handler: clear the interrupts, and return which there were, as
 * VITFORGE_IRQ_STATUS_DONE_MASK and VITFORGE_IRQ_STATUS_FAULT_MASK.
 */
uint32_t vitforge_acknowledge(const struct vitforge *device);

#ifdef __cplusplus
}
#endif

#endif
