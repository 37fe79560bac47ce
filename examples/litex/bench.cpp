// SPDX-License-Identifier: Apache-2.0
// Clock, terminal and observer of the simulated system: prints what the UART says, ends with the
// firmware's code, and then says how the memory answered on the accelerator's bus.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <verilated.h>

#include "Vsoc.h"

namespace {

// Bursts of the read channels. All have one identifier, so they are answered in order.
class Observer {
public:
    void address(uint64_t cycle, unsigned beats) {
        asked_.push_back({cycle, beats, asked_.empty()});
    }

    void beat(uint64_t cycle, bool last) {
        if (asked_.empty()) return;
        const Burst& burst = asked_.front();
        if (first_) {
            if (burst.alone) {
                const uint64_t wait = cycle - burst.cycle;
                waits_ += wait;
                ++alone_;
                if (wait < shortest_) shortest_ = wait;
            }
        } else {
            gaps_ += cycle - before_;
            ++steps_;
        }
        before_ = cycle;
        first_ = last;
        ++beats_;
        if (last) asked_.pop_front();
    }

    void report() const {
        std::printf("memory: %llu beats; first after %llu cycles at the earliest, %.1f on average; "
                    "then one in %.3f cycles\n",
                    (unsigned long long)beats_, (unsigned long long)shortest_,
                    alone_ ? (double)waits_ / alone_ : 0.0,
                    steps_ ? (double)gaps_ / steps_ : 0.0);
    }

private:
    struct Burst {
        uint64_t cycle;
        unsigned beats;
        bool alone;  // nothing else was asked for
    };
    std::deque<Burst> asked_;
    uint64_t waits_ = 0, alone_ = 0, shortest_ = ~0ull, gaps_ = 0, steps_ = 0, before_ = 0;
    uint64_t beats_ = 0;
    bool first_ = true;
};

}  // namespace

int main(int argc, char** argv) {
    const uint64_t limit = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : ~0ull;
    auto context = std::make_unique<VerilatedContext>();
    auto top = std::make_unique<Vsoc>(context.get());
    Observer observer;
    top->serial_source_ready = 1;
    for (uint64_t cycle = 0; cycle < limit; ++cycle) {
        top->sys_clk = 0;
        top->eval();
        // What the next edge takes.
        if (top->serial_source_valid) {
            std::putchar(top->serial_source_data);
            if (top->serial_source_data == '\n') std::fflush(stdout);
        }
        if (top->observed_arvalid) observer.address(cycle, top->observed_arlen + 1u);
        if (top->observed_rvalid) observer.beat(cycle, top->observed_rlast);
        if (top->finish_valid) {
            observer.report();
            return top->finish_code;
        }
        top->sys_clk = 1;
        top->eval();
    }
    std::printf("no end after %llu cycles\n", (unsigned long long)limit);
    return 3;
}
