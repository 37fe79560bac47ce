// SPDX-License-Identifier: Apache-2.0
// A host in Verilog for the accelerator and its memory: one run, for any simulator, without Python.
//
// Plusargs: those of memory.v, and
//           +program_address=A +program_bytes=N   buffers, and the same for input and output
//           +expected=FILE   what the output buffer must hold ($readmemh, one beat a line)
//           +limit=N         cycles after which it gives up
// `python -m gen.program` writes the files, and host.args with all plusargs (fusesoc.args: the same
// for FuseSoC). It prints "PASSED", or "FAILED" with what was wrong; then it ends with $fatal, so
// that the exit code of the simulator says so too.
`timescale 1ns/1ps
`include "vitforge_registers.vh"
module accelerator_host #(
    parameter integer BITS = 64,
    parameter integer BYTES = 1 << 20,
    parameter integer LATENCY = 60
);
    localparam integer STEP = BITS / 8;

    reg clk = 0;
    reg rst = 1;
    always #5 clk = ~clk;

    reg [11:0] awaddr = 0, araddr = 0;
    reg [31:0] wdata = 0;
    reg awvalid = 0, wvalid = 0, bready = 0, arvalid = 0, rready = 0;
    wire awready, wready, bvalid, arready, rvalid, interrupt, stray, pending;
    wire [1:0] bresp, rresp;
    wire [31:0] rdata, read_beats, write_beats;
    reg [31:0] peek_address = 0;
    wire [BITS-1:0] peek_data;
    wire [8:0] violation;
    reg [31:0] program_address, program_bytes, input_address, input_bytes;
    reg [31:0] output_address, output_bytes, limit;

    accelerator_top #(.BITS(BITS), .BYTES(BYTES), .LATENCY(LATENCY)) top (
        .clk(clk), .rst(rst),
        .s_axi_awaddr(awaddr), .s_axi_awprot(3'd0), .s_axi_awvalid(awvalid),
        .s_axi_awready(awready), .s_axi_wdata(wdata), .s_axi_wstrb(4'b1111),
        .s_axi_wvalid(wvalid), .s_axi_wready(wready), .s_axi_bresp(bresp),
        .s_axi_bvalid(bvalid), .s_axi_bready(bready),
        .s_axi_araddr(araddr), .s_axi_arprot(3'd0), .s_axi_arvalid(arvalid),
        .s_axi_arready(arready), .s_axi_rdata(rdata), .s_axi_rresp(rresp),
        .s_axi_rvalid(rvalid), .s_axi_rready(rready), .interrupt(interrupt),
        .peek_address(peek_address), .peek_data(peek_data), .violation(violation),
        .write_low(output_address), .write_high(output_address + output_bytes),
        .stray(stray), .pending(pending), .read_beats(read_beats), .write_beats(write_beats));

    // Inputs change at the falling edge, outputs are looked at before it.
    task put(input [11:0] address, input [31:0] value);
        begin
            awaddr = address;
            wdata = value;
            awvalid = 1;
            wvalid = 1;
            bready = 1;
            while (awvalid || wvalid) begin
                @(posedge clk);
                #4;
                if (awvalid && aw_taken) awvalid = 0;
                if (wvalid && w_taken) wvalid = 0;
                @(negedge clk);
            end
            while (!b_taken) @(negedge clk);
            bready = 0;
            @(negedge clk);
        end
    endtask

    task get(input [11:0] address, output [31:0] value);
        begin
            araddr = address;
            arvalid = 1;
            rready = 1;
            while (!r_taken) begin
                @(posedge clk);
                #4;
                if (ar_taken) arvalid = 0;
                @(negedge clk);
            end
            value = r_data;
            rready = 0;
            @(negedge clk);
        end
    endtask

    // What was taken at the last rising edge.
    reg aw_taken = 0, w_taken = 0, b_taken = 0, ar_taken = 0, r_taken = 0;
    reg [31:0] r_data = 0;
    always @(posedge clk) begin
        aw_taken <= awvalid && awready;
        w_taken <= wvalid && wready;
        b_taken <= bvalid && bready;
        ar_taken <= arvalid && arready;
        r_taken <= rvalid && rready;
        r_data <= rdata;
    end

    reg [8*256-1:0] file;
    reg [BITS-1:0] expected [0:BYTES/STEP-1];
    reg [31:0] status, fault, cycles, busy;
    integer place, wrong;
    initial begin
        if (!$value$plusargs("program_address=%d", program_address)
                || !$value$plusargs("program_bytes=%d", program_bytes)
                || !$value$plusargs("input_address=%d", input_address)
                || !$value$plusargs("input_bytes=%d", input_bytes)
                || !$value$plusargs("output_address=%d", output_address)
                || !$value$plusargs("output_bytes=%d", output_bytes)
                || !$value$plusargs("expected=%s", file)) begin
            $display("FAILED: plusargs are missing");
            $fatal(1);
        end
        if (!$value$plusargs("limit=%d", limit)) limit = 100_000_000;
        $readmemh(file, expected, 0, (output_bytes + STEP - 1) / STEP - 1);
        repeat (4) @(negedge clk);
        rst = 0;
        @(negedge clk);
        put(`VITFORGE_PROGRAM_ADDRESS, program_address);
        put(`VITFORGE_PROGRAM_BYTES, program_bytes);
        put(`VITFORGE_INPUT_ADDRESS, input_address);
        put(`VITFORGE_INPUT_BYTES, input_bytes);
        put(`VITFORGE_OUTPUT_ADDRESS, output_address);
        put(`VITFORGE_OUTPUT_BYTES, output_bytes);
        put(`VITFORGE_IRQ_ENABLE, 3);
        put(`VITFORGE_CONTROL, 1);
        place = 0;
        while (!interrupt && place < limit) begin
            @(negedge clk);
            place = place + 1;
        end
        get(`VITFORGE_STATUS, status);
        get(`VITFORGE_FAULT, fault);
        get(`VITFORGE_CYCLES_LOW, cycles);
        get(`VITFORGE_ARRAY_BUSY_LOW, busy);
        $display("%0d cycles, array busy in %0d, %0d beats read, %0d written", cycles, busy,
                 read_beats, write_beats);
        wrong = 0;
        for (place = 0; place < output_bytes; place = place + STEP) begin
            peek_address = output_address + place;
            #1;
            if (peek_data !== expected[place / STEP]) wrong = wrong + 1;
        end
        if (interrupt && status == 2 && wrong == 0 && violation == 0 && !stray) begin
            $display("PASSED");
            $finish;
        end else begin
            if (!interrupt) $display("FAILED: no interrupt");
            else if (status != 2) $display("FAILED: status %0d, fault %0d", status, fault);
            else if (wrong != 0) $display("FAILED: %0d beats of the output differ", wrong);
            else $display("FAILED: rules %b, stray %b", violation, stray);
            $fatal(1);
        end
    end
endmodule
