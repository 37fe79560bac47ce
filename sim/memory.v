// SPDX-License-Identifier: Apache-2.0
// An AXI4 memory for simulations: fast, exact, unpleasant if asked to be, and strict.
//
// Without stalls a read burst whose address is taken in cycle a has its first beat in cycle
// max(a + LATENCY, cycle after the last beat of the burst before), then one beat a cycle; addresses
// are taken in every cycle. A write burst is acknowledged LATENCY cycles after its last beat. Data
// may come before their address, as AXI4 allows; then the beats are put away one a cycle from the
// cycle after the address, and the last of these counts.
//
// All bursts have one identifier, so they are answered in order. While nothing is valid the other
// signals of R and B are the opposite of what they would be: nothing may depend on them.
//
// Plusargs: +memory=FILE   contents ($readmemh, one beat a line)
//           +latency=N     instead of the parameter; 2 or more
//           +stall=N       a channel is stalled with a probability of N / 256 in a cycle;
//           +stall_ar=N +stall_r=N +stall_aw=N +stall_w=N +stall_b=N   or each with its own
//           +jitter=N      up to N cycles (2**k - 1) more latency, burst by burst
//           +order=N       in which order AW and the beats of a write burst are taken: 0 as they
//                          come, 1 beats from the cycle after the address, 2 the address after the
//                          last beat, 3 each only once the other is valid, 4 one of these by burst
//           +seed=N        of stalls, jitter and orders
//           +error_low=A +error_high=B   window that answers with errors, and keeps its bytes:
//           +error=R       reads and writes, or
//           +read_error=R  only beats of R, or
//           +write_error=R only B of bursts that touch it
// Beyond BYTES everything is answered with DECERR.
`timescale 1ns/1ps
module memory #(
    parameter integer BITS = 64,
    parameter integer BYTES = 1 << 20,
    parameter integer LATENCY = 60
) (
    input wire clk,
    input wire rst,
    input wire [31:0] araddr, input wire [7:0] arlen, input wire [2:0] arsize,
    input wire [1:0] arburst, input wire arvalid, output wire arready,
    output wire [BITS-1:0] rdata, output wire [1:0] rresp, output wire rlast,
    output wire rvalid, input wire rready,
    input wire [31:0] awaddr, input wire [7:0] awlen, input wire [2:0] awsize,
    input wire [1:0] awburst, input wire awvalid, output wire awready,
    input wire [BITS-1:0] wdata, input wire [BITS/8-1:0] wstrb, input wire wlast,
    input wire wvalid, output wire wready,
    output wire [1:0] bresp, output wire bvalid, input wire bready,
    // A window for the bench: any beat, at any time.
    input wire [31:0] peek_address, output wire [BITS-1:0] peek_data,
    // Rules of AXI4 that were broken, until a reset:
    //   0, 1, 2  AR, AW, W: what was offered was changed or withdrawn before it was taken
    //   3, 4     AR, AW: not incrementing beats of the full width at a multiple of it
    //   5, 6     AR, AW: the burst crosses a multiple of 4096
    //   7        WLAST with another than the last beat, or not with that
    //   8        an address or data during a reset
    output reg [8:0] violation,
    // A byte outside write_low..write_high-1 was written.
    input wire [31:0] write_low, input wire [31:0] write_high, output reg stray,
    // Something was offered or taken that has not been answered.
    output wire pending,
    output reg [31:0] read_beats, output reg [31:0] write_beats
);
    localparam integer LOW = $clog2(BITS / 8);
    localparam integer WORDS = BYTES / (BITS / 8);
    localparam integer PLACE = $clog2(WORDS);
    localparam [1:0] OKAY = 0, DECERR = 3;

    reg [BITS-1:0] mem [0:WORDS-1];
    reg [8*256-1:0] file;
    reg [31:0] latency, jitter, seed, order;
    // A bench may write these in a simulation.
    reg [31:0] error_low /* verilator public_flat_rw */;
    reg [31:0] error_high /* verilator public_flat_rw */;
    reg [31:0] stall, stall_ar, stall_r, stall_aw, stall_w, stall_b;
    reg [1:0] error;
    reg [1:0] read_error /* verilator public_flat_rw */;
    reg [1:0] write_error /* verilator public_flat_rw */;
    initial begin
        if ($value$plusargs("memory=%s", file)) $readmemh(file, mem);
        if (!$value$plusargs("latency=%d", latency)) latency = LATENCY;
        if (!$value$plusargs("stall=%d", stall)) stall = 0;
        if (!$value$plusargs("stall_ar=%d", stall_ar)) stall_ar = stall;
        if (!$value$plusargs("stall_r=%d", stall_r)) stall_r = stall;
        if (!$value$plusargs("stall_aw=%d", stall_aw)) stall_aw = stall;
        if (!$value$plusargs("stall_w=%d", stall_w)) stall_w = stall;
        if (!$value$plusargs("stall_b=%d", stall_b)) stall_b = stall;
        if (!$value$plusargs("jitter=%d", jitter)) jitter = 0;
        if (!$value$plusargs("order=%d", order)) order = 0;
        if (!$value$plusargs("seed=%d", seed)) seed = 1;
        if (!$value$plusargs("error_low=%d", error_low)) error_low = 0;
        if (!$value$plusargs("error_high=%d", error_high)) error_high = 0;
        if (!$value$plusargs("error=%d", error)) error = 0;
        if (!$value$plusargs("read_error=%d", read_error)) read_error = error;
        if (!$value$plusargs("write_error=%d", write_error)) write_error = error;
    end

    // A cycle counter, and a generator of 64 random bits a cycle (xorshift).
    reg [31:0] now;
    reg [63:0] random;
    wire [63:0] random_1 = random ^ (random << 13);
    wire [63:0] random_2 = random_1 ^ (random_1 >> 7);
    always @(posedge clk) begin
        now <= rst ? 0 : now + 1;
        random <= rst ? {seed, 32'h9E3779B9} : random_2 ^ (random_2 << 17);
    end
    wire go_ar = {24'd0, random[7:0]} >= stall_ar;
    wire go_r = {24'd0, random[15:8]} >= stall_r;
    wire go_aw = {24'd0, random[23:16]} >= stall_aw;
    wire go_w = {24'd0, random[31:24]} >= stall_w;
    wire go_b = {24'd0, random[39:32]} >= stall_b;
    wire [31:0] due = now + latency + ({8'd0, random[63:40]} & jitter);

    // Reads: a queue of bursts, the oldest one beat after beat.
    localparam integer READS = 6;
    reg [31:0] r_address [0:(1<<READS)-1];
    reg [31:0] r_due [0:(1<<READS)-1];
    reg [7:0] r_more [0:(1<<READS)-1];
    reg [READS:0] r_newest, r_oldest;
    reg [7:0] r_beat;
    reg r_held;
    wire [READS-1:0] r_head = r_oldest[READS-1:0];
    wire [31:0] r_place = (r_address[r_head] >> LOW) + {24'd0, r_beat};
    wire [31:0] r_at = r_place << LOW;
    wire [1:0] r_answer = r_at >= BYTES ? DECERR
                        : r_at >= error_low && r_at < error_high ? read_error : OKAY;
    wire [BITS-1:0] r_data = mem[r_place[PLACE-1:0]];
    wire r_last = r_beat == r_more[r_head];
    assign arready = go_ar && r_newest - r_oldest != 1 << READS;
    assign rvalid = r_newest != r_oldest && now >= r_due[r_head] && (r_held || go_r);
    assign rdata = rvalid && r_answer == OKAY ? r_data : ~r_data;
    assign rlast = rvalid ? r_last : !r_last;
    assign rresp = rvalid ? r_answer : ~r_answer;
    always @(posedge clk) begin
        r_held <= rvalid && !rready;
        if (arvalid && arready) begin
            r_address[r_newest[READS-1:0]] <= araddr;
            r_more[r_newest[READS-1:0]] <= arlen;
            r_due[r_newest[READS-1:0]] <= due;
            r_newest <= r_newest + 1;
        end
        if (rvalid && rready) begin
            r_beat <= r_last ? 0 : r_beat + 1;
            if (r_last) r_oldest <= r_oldest + 1;
            read_beats <= read_beats + 1;
        end
        if (rst) begin
            r_newest <= 0;
            r_oldest <= 0;
            r_beat <= 0;
            r_held <= 0;
            read_beats <= 0;
        end
    end

    // The orders: by the number of addresses that were taken, and of bursts whose last beat was.
    reg [31:0] a_bursts, w_bursts;
    reg w_begun;
    function automatic [1:0] order_of(input [31:0] burst);
        reg [31:0] mixed;
        begin
            mixed = (seed + burst) * 32'h9E3779B1;
            order_of = order == 4 ? mixed[29:28] : order[1:0];
        end
    endfunction
    wire [1:0] a_order = order_of(a_bursts), w_order = order_of(w_bursts);
    wire both = a_bursts == w_bursts && (awvalid && wvalid || w_begun);
    wire may_aw = $signed(a_bursts - w_bursts) < 0 || !a_order[1] || a_order == 3 && both;
    wire may_w = $signed(w_bursts - a_bursts) < 0 || !w_order[0] || w_order == 3 && both;
    always @(posedge clk) begin
        if (awvalid && awready) a_bursts <= a_bursts + 1;
        if (wvalid && wready) begin
            w_begun <= !wlast;
            if (wlast) w_bursts <= w_bursts + 1;
        end
        if (rst) begin
            a_bursts <= 0;
            w_bursts <= 0;
            w_begun <= 0;
        end
    end

    // Writes: queues of addresses and of beats (a whole burst), which meet one cycle later, and one
    // of answers.
    localparam integer WRITES = 3, BEATS = 8;
    reg [31:0] a_address [0:(1<<WRITES)-1];
    reg [7:0] a_more [0:(1<<WRITES)-1];
    reg [WRITES:0] a_newest, a_oldest;
    reg [BITS+BITS/8:0] w_beat [0:(1<<BEATS)-1];
    reg [BEATS:0] w_newest, w_oldest;
    reg [31:0] b_due [0:(1<<WRITES)-1];
    reg [1:0] b_answer [0:(1<<WRITES)-1];
    reg [WRITES:0] b_newest, b_oldest;
    reg b_held;
    reg [7:0] w_count;
    reg [1:0] w_worst;
    integer lane;
    wire [WRITES-1:0] a_head = a_oldest[WRITES-1:0];
    wire [WRITES-1:0] b_head = b_oldest[WRITES-1:0];
    wire [BITS-1:0] w_data;
    wire [BITS/8-1:0] w_strobes;
    wire w_last;
    assign {w_last, w_strobes, w_data} = w_beat[w_oldest[BEATS-1:0]];
    wire [31:0] w_place = (a_address[a_head] >> LOW) + {24'd0, w_count};
    wire [31:0] w_at = w_place << LOW;
    wire [1:0] w_answer = w_at >= BYTES ? DECERR
                        : w_at >= error_low && w_at < error_high ? write_error : OKAY;
    wire [1:0] w_all = w_answer | w_worst;   // a DECERR of one beat is one of the burst
    wire w_ends = w_count == a_more[a_head];
    wire write = a_newest != a_oldest && w_newest != w_oldest && b_newest - b_oldest != 1 << WRITES;
    assign awready = go_aw && a_newest - a_oldest != 1 << WRITES && may_aw;
    assign wready = go_w && w_newest - w_oldest != 1 << BEATS && may_w;
    assign bvalid = b_newest != b_oldest && now >= b_due[b_head] && (b_held || go_b);
    assign bresp = bvalid ? b_answer[b_head] : ~b_answer[b_head];
    always @(posedge clk) begin
        b_held <= bvalid && !bready;
        if (awvalid && awready) begin
            a_address[a_newest[WRITES-1:0]] <= awaddr;
            a_more[a_newest[WRITES-1:0]] <= awlen;
            a_newest <= a_newest + 1;
        end
        if (wvalid && wready) begin
            w_beat[w_newest[BEATS-1:0]] <= {wlast, wstrb, wdata};
            w_newest <= w_newest + 1;
            write_beats <= write_beats + 1;
        end
        if (write) begin
            for (lane = 0; lane < BITS / 8; lane = lane + 1)
                if (w_strobes[lane]) begin
                    if (w_answer == OKAY)
                        mem[w_place[PLACE-1:0]][8*lane +: 8] <= w_data[8*lane +: 8];
                    if (w_at + lane < write_low || w_at + lane >= write_high) stray <= 1;
                end
            w_oldest <= w_oldest + 1;
            w_count <= w_ends ? 0 : w_count + 1;
            w_worst <= w_ends ? OKAY : w_all;
            if (w_ends) begin
                a_oldest <= a_oldest + 1;
                b_due[b_newest[WRITES-1:0]] <= due - 1;   // its last beat came one cycle ago
                b_answer[b_newest[WRITES-1:0]] <= w_all;
                b_newest <= b_newest + 1;
            end
        end
        if (bvalid && bready) b_oldest <= b_oldest + 1;
        if (rst) begin
            a_newest <= 0;
            a_oldest <= 0;
            w_newest <= 0;
            w_oldest <= 0;
            b_newest <= 0;
            b_oldest <= 0;
            b_held <= 0;
            w_count <= 0;
            w_worst <= OKAY;
            stray <= 0;
            write_beats <= 0;
        end
    end

    // The rules.
    function automatic bad_shape(input [31:0] address, input [2:0] size, input [1:0] burst);
        bad_shape = burst != 1 || size != LOW[2:0] || (address & (BITS / 8 - 1)) != 0;
    endfunction
    function automatic crosses(input [11:0] address, input [7:0] more);
        crosses = {20'd0, address} + (({24'd0, more} + 1) << LOW) > 4096;
    endfunction
    wire [44:0] ar = {araddr, arlen, arsize, arburst};
    wire [44:0] aw = {awaddr, awlen, awsize, awburst};
    wire [BITS+BITS/8:0] w = {wdata, wstrb, wlast};
    reg ar_held, aw_held, w_held, reset_held;
    reg [44:0] ar_was, aw_was;
    reg [BITS+BITS/8:0] w_was;
    always @(posedge clk) begin
        reset_held <= rst;
        ar_held <= arvalid && !arready && !rst;
        aw_held <= awvalid && !awready && !rst;
        w_held <= wvalid && !wready && !rst;
        ar_was <= ar;
        aw_was <= aw;
        w_was <= w;
        if (rst) violation <= reset_held && (arvalid || awvalid || wvalid) ? violation | 9'h100 : 0;
        else violation <= violation | {
            1'b0,
            write && w_last != w_ends,
            awvalid && crosses(awaddr[11:0], awlen), arvalid && crosses(araddr[11:0], arlen),
            awvalid && bad_shape(awaddr, awsize, awburst),
            arvalid && bad_shape(araddr, arsize, arburst),
            w_held && (!wvalid || w != w_was), aw_held && (!awvalid || aw != aw_was),
            ar_held && (!arvalid || ar != ar_was)};
    end
    assign pending = arvalid || awvalid || wvalid || r_newest != r_oldest || a_newest != a_oldest
                     || w_newest != w_oldest || b_newest != b_oldest;

    assign peek_data = peek_address < BYTES ? mem[peek_address[LOW +: PLACE]] : 0;
endmodule
