// SPDX-License-Identifier: Apache-2.0
// The accelerator and its memory; the host is cocotb, on the ports s_axi_*.
`timescale 1ns/1ps
module accelerator_top #(
    parameter integer BITS = 64,
    parameter integer BYTES = 1 << 20,
    parameter integer LATENCY = 60
) (
    input wire clk, input wire rst,
    input wire [11:0] s_axi_awaddr, input wire [2:0] s_axi_awprot, input wire s_axi_awvalid,
    output wire s_axi_awready, input wire [31:0] s_axi_wdata, input wire [3:0] s_axi_wstrb,
    input wire s_axi_wvalid, output wire s_axi_wready, output wire [1:0] s_axi_bresp,
    output wire s_axi_bvalid, input wire s_axi_bready,
    input wire [11:0] s_axi_araddr, input wire [2:0] s_axi_arprot, input wire s_axi_arvalid,
    output wire s_axi_arready, output wire [31:0] s_axi_rdata, output wire [1:0] s_axi_rresp,
    output wire s_axi_rvalid, input wire s_axi_rready,
    output wire interrupt,
    input wire [31:0] peek_address, output wire [BITS-1:0] peek_data,
    output wire [8:0] violation, input wire [31:0] write_low, input wire [31:0] write_high,
    output wire stray, output wire pending, output wire [31:0] read_beats,
    output wire [31:0] write_beats
);
    wire [31:0] araddr, awaddr;
    wire [7:0] arlen, awlen;
    wire [2:0] arsize, awsize;
    wire [1:0] arburst, awburst, rresp, bresp;
    wire arvalid, arready, rlast, rvalid, rready, awvalid, awready, wlast, wvalid, wready, bvalid,
         bready;
    wire [BITS-1:0] rdata, wdata;
    wire [BITS/8-1:0] wstrb;
    accelerator dut (
        .clk(clk), .rst(rst), .interrupt(interrupt),
        .s_axi_awaddr(s_axi_awaddr), .s_axi_awprot(s_axi_awprot), .s_axi_awvalid(s_axi_awvalid),
        .s_axi_awready(s_axi_awready), .s_axi_wdata(s_axi_wdata), .s_axi_wstrb(s_axi_wstrb),
        .s_axi_wvalid(s_axi_wvalid), .s_axi_wready(s_axi_wready), .s_axi_bresp(s_axi_bresp),
        .s_axi_bvalid(s_axi_bvalid), .s_axi_bready(s_axi_bready),
        .s_axi_araddr(s_axi_araddr), .s_axi_arprot(s_axi_arprot), .s_axi_arvalid(s_axi_arvalid),
        .s_axi_arready(s_axi_arready), .s_axi_rdata(s_axi_rdata), .s_axi_rresp(s_axi_rresp),
        .s_axi_rvalid(s_axi_rvalid), .s_axi_rready(s_axi_rready),
        .m_axi_arid(), .m_axi_araddr(araddr), .m_axi_arlen(arlen), .m_axi_arsize(arsize),
        .m_axi_arburst(arburst), .m_axi_arlock(), .m_axi_arcache(), .m_axi_arprot(),
        .m_axi_arqos(), .m_axi_arregion(), .m_axi_arvalid(arvalid),
        .m_axi_arready(arready), .m_axi_rid(1'b0), .m_axi_rdata(rdata), .m_axi_rresp(rresp),
        .m_axi_rlast(rlast), .m_axi_rvalid(rvalid), .m_axi_rready(rready),
        .m_axi_awid(), .m_axi_awaddr(awaddr), .m_axi_awlen(awlen), .m_axi_awsize(awsize),
        .m_axi_awburst(awburst), .m_axi_awlock(), .m_axi_awcache(), .m_axi_awprot(),
        .m_axi_awqos(), .m_axi_awregion(), .m_axi_awvalid(awvalid),
        .m_axi_awready(awready), .m_axi_wdata(wdata), .m_axi_wstrb(wstrb), .m_axi_wlast(wlast),
        .m_axi_wvalid(wvalid), .m_axi_wready(wready), .m_axi_bid(1'b0), .m_axi_bresp(bresp),
        .m_axi_bvalid(bvalid), .m_axi_bready(bready));
    memory #(.BITS(BITS), .BYTES(BYTES), .LATENCY(LATENCY)) ram (
        .clk(clk), .rst(rst),
        .araddr(araddr), .arlen(arlen), .arsize(arsize), .arburst(arburst), .arvalid(arvalid),
        .arready(arready), .rdata(rdata), .rresp(rresp), .rlast(rlast), .rvalid(rvalid),
        .rready(rready),
        .awaddr(awaddr), .awlen(awlen), .awsize(awsize), .awburst(awburst), .awvalid(awvalid),
        .awready(awready), .wdata(wdata), .wstrb(wstrb), .wlast(wlast), .wvalid(wvalid),
        .wready(wready), .bresp(bresp), .bvalid(bvalid), .bready(bready),
        .peek_address(peek_address), .peek_data(peek_data),
        .violation(violation), .write_low(write_low), .write_high(write_high), .stray(stray),
        .pending(pending), .read_beats(read_beats), .write_beats(write_beats));
endmodule
