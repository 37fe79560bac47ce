/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classify the inputs that are linked in, and compare every logit with the golden model's.
 *
 * Ends with "all N equal" or with a line that says what is wrong. In a simulation the exit code is
 * 0 only for the first.
 */
#include <stdio.h>
#include <string.h>

#include <generated/csr.h>
#include <generated/mem.h>
#include <generated/soc.h>
#include <irq.h>
#include <libbase/uart.h>

#include "network.h"
#include "vitforge.h"

static struct vitforge device;
static volatile uint32_t events;

static void on_interrupt(void)
{
    events |= vitforge_acknowledge(&device);
}

static int sleep_until_interrupt(void *context)
{
    (void)context;
    while (events == 0)
        ;
    return 0;
}

static unsigned argmax(const int32_t *logits)
{
    unsigned best = 0;

    for (unsigned i = 1; i < NETWORK_CLASSES; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static int probe(void)
{
    struct vitforge_capability found;
    int result = vitforge_probe(&device, (volatile uint32_t *)VITFORGE_BASE, NETWORK_CONFIG_HASH,
                                &found);

    if (result == VITFORGE_OK)
        printf("probe: %lux%lu, %lu lanes, bus of %lu bytes, configuration %08lx\n",
               (unsigned long)found.rows, (unsigned long)found.cols, (unsigned long)found.lanes,
               (unsigned long)found.axi_bytes, (unsigned long)found.config_hash);
    else
        printf("probe: no accelerator of this configuration (%d)\n", result);
    return result;
}

static void use_interrupt(void)
{
    irq_attach(VITFORGE_INTERRUPT, on_interrupt);
    vitforge_ev_enable_write(1);
    irq_setmask(irq_getmask() | 1u << VITFORGE_INTERRUPT);
    device.wait = sleep_until_interrupt;
    vitforge_enable_interrupts(&device, VITFORGE_IRQ_ENABLE_DONE_MASK |
                                            VITFORGE_IRQ_ENABLE_FAULT_MASK);
}

static int run(unsigned number, int32_t *logits)
{
    const struct vitforge_buffers buffers = {
        (uint32_t)network_program,        NETWORK_PROGRAM_BYTES,
        (uint32_t)network_inputs[number], NETWORK_INPUT_BYTES,
        (uint32_t)network_output,         NETWORK_OUTPUT_BYTES,
    };
    struct vitforge_fault_report report;
    int result;

    /* An earlier image's logits must not be taken for this one's. */
    memset(network_output, 0, NETWORK_OUTPUT_BYTES);
    events = 0;
    result = vitforge_load(&device, &buffers);
    if (result == VITFORGE_OK)
        result = vitforge_start(&device);
    if (result == VITFORGE_OK)
        result = vitforge_wait(&device, 2);
    if (result == VITFORGE_FAULTED) {
        vitforge_fault(&device, &report);
        printf("fault: %s, instruction %lu, address %08lx\n", vitforge_fault_name(report.kind),
               (unsigned long)report.instruction, (unsigned long)report.address);
    }
    if (result == VITFORGE_OK)
        result = vitforge_read_logits(&device, network_output, logits, NETWORK_CLASSES);
    return result;
}

static int classify_all(void)
{
    unsigned equal = 0;

    for (unsigned number = 0; number < NETWORK_INPUTS; number++) {
        int32_t logits[NETWORK_CLASSES];
        struct vitforge_counters counters;
        int result = run(number, logits);
        int same = 0;

        if (result != VITFORGE_OK) {
            printf("image %u: no result (%d)\n", number, result);
            return 1;
        }
        for (unsigned i = 0; i < NETWORK_CLASSES; i++)
            same += logits[i] == network_logits[number][i];
        equal += same == NETWORK_CLASSES;
        vitforge_counters(&device, &counters);
        printf("image %u: class %u, %d of %u logits equal; cycles %lu, array_busy %lu, "
               "weight_wait %lu, memory_wait %lu, norm_wait %lu, softmax_wait %lu, drain_wait "
               "%lu\n",
               number, argmax(logits), same, NETWORK_CLASSES, (unsigned long)counters.cycles,
               (unsigned long)counters.array_busy, (unsigned long)counters.weight_wait,
               (unsigned long)counters.memory_wait, (unsigned long)counters.norm_wait,
               (unsigned long)counters.softmax_wait, (unsigned long)counters.drain_wait);
    }
    printf(equal == NETWORK_INPUTS ? "all %u equal\n" : "only %u equal\n", equal);
    return equal != NETWORK_INPUTS;
}

int main(void)
{
    int wrong;

    irq_setmask(0);
    irq_setie(1);
    uart_init();
    wrong = probe() != VITFORGE_OK;
    if (!wrong) {
        use_interrupt();
        wrong = classify_all();
    }
#ifdef CSR_FINISH_BASE
    /* A simulation ends here, when all characters are out. */
    uart_sync();
    finish_code_write(wrong);
#endif
    for (;;)
        ;
}
