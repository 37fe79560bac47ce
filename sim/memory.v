// SPDX-License-Identifier: Apache-2.0
// An AXI4 memory for simulations: fast, exact, and unpleasant if asked to be.
//
// Without stalls a read burst whose address is taken in cycle a has its first beat in cycle
// max(a + LATENCY, cycle after the last beat of the burst before), then one beat a cycle; addresses
// are taken in every cycle. A write burst is acknowledged LATENCY cycles after its last beat.
//
// Plusargs: +memory=FILE   contents ($readmemh, one beat a line)
//           +stall=N       every channel is stalled with a probability of N / 256 in a cycle
//           +jitter=N      up to N cycles (2**k - 1) more latency, burst by burst
//           +seed=N        of both
//           +error_low=A +error_high=B +error=R   bursts that begin in A..B-1 are answered with R
//           +write_low=A +write_high=B            bytes outside A..B-1 must not be written
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
    // What must not happen: a broken rule of AXI, a byte written outside its buffer.
    output reg violation, output reg stray,
    output reg [31:0] read_beats, output reg [31:0] write_beats
);
    localparam integer LOW = $clog2(BITS / 8);
    localparam integer WORDS = BYTES / (BITS / 8);
    localparam integer DEPTH = 64;

    reg [BITS-1:0] mem [0:WORDS-1];
    reg [8*256-1:0] file;
    reg [31:0] stall, jitter, seed, error_low, error_high, error, write_low, write_high;
    initial begin
        if ($value$plusargs("memory=%s", file)) $readmemh(file, mem);
        if (!$value$plusargs("stall=%d", stall)) stall = 0;
        if (!$value$plusargs("jitter=%d", jitter)) jitter = 0;
        if (!$value$plusargs("seed=%d", seed)) seed = 1;
        if (!$value$plusargs("error=%d", error)) error = 0;
        if (!$value$plusargs("error_low=%d", error_low)) error_low = 0;
        if (!$value$plusargs("error_high=%d", error_high)) error_high = 0;
        if (!$value$plusargs("write_low=%d", write_low)) write_low = 0;
        if (!$value$plusargs("write_high=%d", write_high)) write_high = 32'hFFFFFFFF;
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
    wire [4:0] go = {random[7:0] >= stall[7:0], random[15:8] >= stall[7:0],
                     random[23:16] >= stall[7:0], random[31:24] >= stall[7:0],
                     random[39:32] >= stall[7:0]};

    // Reads: a queue of bursts, the oldest one beat after beat.
    reg [31:0] address [0:DEPTH-1];
    reg [31:0] due [0:DEPTH-1];
    reg [7:0] beats [0:DEPTH-1];
    reg [6:0] newest, oldest;
    reg [7:0] beat;
    reg r_held;
    wire [5:0] head = oldest[5:0];
    wire [31:0] place = (address[head] >> LOW) + {24'd0, beat};
    wire r_there = newest != oldest && now >= due[head];
    assign arready = go[0] && newest - oldest != DEPTH[6:0];
    assign rvalid = r_there && (r_held || go[1]);
    assign rdata = mem[place % WORDS];
    assign rlast = beat == beats[head];
    assign rresp = address[head] >= error_low && address[head] < error_high ? error[1:0] : 2'd0;
    always @(posedge clk) begin
        r_held <= !rst && rvalid && !rready;
        if (arvalid && arready) begin
            address[newest[5:0]] <= araddr;
            beats[newest[5:0]] <= arlen;
            due[newest[5:0]] <= now + LATENCY + (random[63:32] & jitter);
            newest <= newest + 1;
        end
        if (rvalid && rready) begin
            beat <= rlast ? 0 : beat + 1;
            if (rlast) oldest <= oldest + 1;
            read_beats <= read_beats + 1;
        end
        if (rst) begin
            newest <= 0;
            oldest <= 0;
            beat <= 0;
            read_beats <= 0;
        end
    end

    // Writes: one burst at a time.
    localparam [1:0] IDLE = 0, DATA = 1, WAIT = 2, ANSWER = 3;
    reg [1:0] state;
    reg [31:0] w_address, w_due;
    reg [7:0] w_left;
    reg [31:0] w_first;
    integer lane;
    assign awready = state == IDLE && go[2];
    assign wready = state == DATA && go[3];
    assign bvalid = state == ANSWER;
    assign bresp = w_first >= error_low && w_first < error_high ? error[1:0] : 2'd0;
    always @(posedge clk) begin
        case (state)
            IDLE: if (awvalid && awready) begin
                w_address <= awaddr >> LOW;
                w_first <= awaddr;
                w_left <= awlen;
                state <= DATA;
            end
            DATA: if (wvalid && wready) begin
                for (lane = 0; lane < BITS / 8; lane = lane + 1)
                    if (wstrb[lane]) begin
                        mem[w_address % WORDS][8*lane +: 8] <= wdata[8*lane +: 8];
                        if ((w_address << LOW) + lane < write_low
                            || (w_address << LOW) + lane >= write_high) stray <= 1;
                    end
                w_address <= w_address + 1;
                w_left <= w_left - 1;
                write_beats <= write_beats + 1;
                if (wlast != (w_left == 0)) violation <= 1;
                w_due <= now + LATENCY;
                if (wlast) state <= WAIT;
            end
            WAIT: if (now + 1 >= w_due && go[4]) state <= ANSWER;
            ANSWER: if (bready) state <= IDLE;
        endcase
        if (rst) begin
            state <= IDLE;
            stray <= 0;
            write_beats <= 0;
        end
        // The rules: full-width incrementing bursts inside a page, and nothing that is offered changes.
        if (arvalid && (arburst != 1 || arsize != LOW[2:0]
                || ({20'd0, araddr[11:0]} + (({24'd0, arlen} + 1) << LOW)) > 4096
                || (araddr & (BITS / 8 - 1)) != 0)) violation <= 1;
        if (awvalid && (awburst != 1 || awsize != LOW[2:0]
                || ({20'd0, awaddr[11:0]} + (({24'd0, awlen} + 1) << LOW)) > 4096
                || (awaddr & (BITS / 8 - 1)) != 0)) violation <= 1;
        if (ar_held && (!arvalid || {araddr, arlen} != ar_was)) violation <= 1;
        if (aw_held && (!awvalid || {awaddr, awlen} != aw_was)) violation <= 1;
        if (w_held && (!wvalid || {wdata, wstrb, wlast} != w_was)) violation <= 1;
        if (rst) violation <= 0;
    end
    reg ar_held, aw_held, w_held;
    reg [39:0] ar_was, aw_was;
    reg [BITS+BITS/8:0] w_was;
    always @(posedge clk) begin
        ar_held <= !rst && arvalid && !arready;
        aw_held <= !rst && awvalid && !awready;
        w_held <= !rst && wvalid && !wready;
        ar_was <= {araddr, arlen};
        aw_was <= {awaddr, awlen};
        w_was <= {wdata, wstrb, wlast};
    end

    assign peek_data = mem[(peek_address >> LOW) % WORDS];
endmodule
