/* SPDX-License-Identifier: Apache-2.0 */
/* Classify one image: the program and the input are in memory already. */
#include "vitforge.h"

#include <stdio.h>

#define CLASSES 10u
/* With a wait hook that sleeps a millisecond: ten seconds. */
#define POLLS 10000u

int classify(struct vitforge *device, const struct vitforge_buffers *buffers,
             const volatile void *output);

/* Returns the class, or an error of the driver (below 0). */
int classify(struct vitforge *device, const struct vitforge_buffers *buffers,
             const volatile void *output)
{
    int32_t logits[CLASSES];
    struct vitforge_fault_report report;
    int best = 0;
    int result = vitforge_load(device, buffers);

    if (result == VITFORGE_OK)
        result = vitforge_start(device);
    if (result == VITFORGE_OK)
        result = vitforge_wait(device, POLLS);
    if (result == VITFORGE_TIMEOUT) {
        vitforge_stop(device);
        result = vitforge_wait(device, POLLS);
    }
    if (result == VITFORGE_FAULTED) {
        vitforge_fault(device, &report);
        printf("fault: %s, instruction %lu, address 0x%08lx\n", vitforge_fault_name(report.kind),
               (unsigned long)report.instruction, (unsigned long)report.address);
    }
    if (result == VITFORGE_OK)
        result = vitforge_read_logits(device, output, logits, CLASSES);
    if (result != VITFORGE_OK)
        return result < 0 ? result : VITFORGE_REFUSED;
    for (unsigned i = 1; i < CLASSES; i++)
        if (logits[i] > logits[best])
            best = (int)i;
    return best;
}
