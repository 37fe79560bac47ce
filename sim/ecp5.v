// SPDX-License-Identifier: Apache-2.0
// Models of the two cells of an ECP5 that Yosys has no models of, the block memory and the
// multiplier, as synthesis and gen/synthesis use them. No delays. An option without a model ends
// the simulation.
//
// Written from the way in which Yosys uses the cells (techlibs/lattice: brams_16kd.txt,
// brams_map_16kd.v, dsp_map_18x18.v), and where registers lie in them from gen/synthesis/dsp.py and
// memories.py. Not compared with Lattice's own models. What a cell is: Lattice, ECP5 and ECP5-5G
// Memory Usage Guide (FPGA-TN-02204) and sysDSP Usage Guide (FPGA-TN-02205).

// Words of 18 bits, two bytes of 9; a port has words of 1 to 18 bits, or of 36 with both halves of
// the pins: A writes these, and B reads them. Of addresses of words of 18 and 36 bits the lowest
// bits enable bytes.
//
// A bit that one port reads and the other one writes with the same edge has no certain value: it is
// read as the opposite of what it was.
module DP16KD #(
    parameter integer DATA_WIDTH_A = 18, DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG",
    parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL",
    parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC", GSR = "ENABLED",
    parameter CSDECODE_A = "0b000", CSDECODE_B = "0b000",
    parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB",
    parameter [319:0]
        INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0, INITVAL_04 = 0, INITVAL_05 =
        0, INITVAL_06 = 0, INITVAL_07 = 0, INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0,
        INITVAL_0B = 0, INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0, INITVAL_0F = 0, INITVAL_10 =
        0, INITVAL_11 = 0, INITVAL_12 = 0, INITVAL_13 = 0, INITVAL_14 = 0, INITVAL_15 = 0,
        INITVAL_16 = 0, INITVAL_17 = 0, INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B =
        0, INITVAL_1C = 0, INITVAL_1D = 0, INITVAL_1E = 0, INITVAL_1F = 0, INITVAL_20 = 0,
        INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0, INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 =
        0, INITVAL_27 = 0, INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0,
        INITVAL_2C = 0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0, INITVAL_30 = 0, INITVAL_31 =
        0, INITVAL_32 = 0, INITVAL_33 = 0, INITVAL_34 = 0, INITVAL_35 = 0, INITVAL_36 = 0,
        INITVAL_37 = 0, INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0, INITVAL_3C =
        0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0
) (
    input CLKA, CEA, OCEA, WEA, RSTA, CSA0, CSA1, CSA2,
    input CLKB, CEB, OCEB, WEB, RSTB, CSB0, CSB1, CSB2,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
    DIA4, DIA3, DIA2, DIA1, DIA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
    DOA4, DOA3, DOA2, DOA1, DOA0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
    DIB4, DIB3, DIB2, DIB1, DIB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
    DOB4, DOB3, DOB2, DOB1, DOB0
);
    localparam [64*320-1:0] CONTENTS = {
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39,
        INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32,
        INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B,
        INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
        INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D,
        INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
        INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F,
        INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
        INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01,
        INITVAL_00};
    wire [1:0] clock = {CLKB, CLKA};
    wire [1:0] on = {CEB & ~(CSB0 | CSB1 | CSB2), CEA & ~(CSA0 | CSA1 | CSA2)};
    wire [1:0] write = on & {WEB, WEA}, reset = {RSTB, RSTA}, follow = {OCEB, OCEA};
    wire [27:0] addresses = {
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [35:0] data = {
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
        DIB3, DIB2, DIB1, DIB0, DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8,
        DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};

    reg [8:0] bytes [0:2047];
    integer number;
    initial begin
        for (number = 0; number < 1024; number = number + 1) begin
            bytes[2 * number] = CONTENTS[20 * number +: 9];
            bytes[2 * number + 1] = CONTENTS[20 * number + 9 +: 9];
        end
    end
    // Without a reset either mode of it is the same.
    wire strange = CLKAMUX != "CLKA" || CLKBMUX != "CLKB" || CSDECODE_A != "0b000"
                   || CSDECODE_B != "0b000" || (RESETMODE != "SYNC" && (RSTA || RSTB));
    always @(strange) if (strange) begin
        $display("FAILED: a DP16KD has an option without a model");
        $fatal(1);
    end

    // The bits of a byte that a write changes.
    function [8:0] changed(input integer width, input [13:0] at, input [10:0] place);
        case (width)
            36: changed = {9{place[10:2] == at[13:5] && at[{2'd0, place[1:0]}]}};
            18: changed = {9{place[10:1] == at[13:4] && at[{3'd0, place[0]}]}};
            9: changed = {9{place == at[13:3]}};
            4: changed = place == at[13:3] ? 9'h00f << {at[2], 2'd0} : 9'd0;
            2: changed = place == at[13:3] ? 9'h003 << {at[2:1], 1'd0} : 9'd0;
            default: changed = place == at[13:3] ? 9'h001 << at[2:0] : 9'd0;
        endcase
    endfunction

    wire [71:0] outputs;
    genvar port, number_of_byte;
    generate for (port = 0; port < 2; port = port + 1) begin : ports
        localparam integer WIDTH = port == 0 ? DATA_WIDTH_A : DATA_WIDTH_B;
        localparam integer OTHER = port == 0 ? DATA_WIDTH_B : DATA_WIDTH_A;
        localparam integer BYTES = (WIDTH + 8) / 9;
        localparam NORMAL = (port == 0 ? WRITEMODE_A : WRITEMODE_B) == "NORMAL";
        localparam THROUGH = (port == 0 ? WRITEMODE_A : WRITEMODE_B) == "WRITETHROUGH";
        localparam REGISTER = (port == 0 ? REGMODE_A : REGMODE_B) == "OUTREG";
        wire [13:0] at = addresses[14 * port +: 14], other = addresses[14 * (1 - port) +: 14];
        wire [10:0] first = WIDTH == 36 ? {at[13:5], 2'd0} : WIDTH == 18 ? {at[13:4], 1'd0}
                                        : at[13:3];
        // Data of a narrow port, in every place of a byte that it may have.
        wire [17:0] half = data[18 * port +: 18];
        wire [35:0] given = WIDTH == 36 ? data
                            : {18'd0, WIDTH == 1 ? {10'd0, {8{half[0]}}}
                                      : WIDTH == 2 ? {10'd0, {4{half[1:0]}}}
                                      : WIDTH == 4 ? {10'd0, {2{half[3:0]}}} : half};
        wire [9*BYTES-1:0] word;
        for (number_of_byte = 0; number_of_byte < BYTES; number_of_byte = number_of_byte + 1)
        begin : parts
            wire [10:0] place = first + number_of_byte;
            wire [8:0] mask = changed(WIDTH, at, place);
            assign word[9*number_of_byte +: 9] = bytes[place]
                ^ (changed(OTHER, other, place) & {9{write[1 - port]}});
            always @(posedge clock[port])
                if (write[port])
                    bytes[place] <= (bytes[place] & ~mask) | (given[9*number_of_byte +: 9] & mask);
        end
        wire [2:0] shift = WIDTH == 4 ? {at[2], 2'd0} : WIDTH == 2 ? {at[2:1], 1'd0}
                           : WIDTH == 1 ? at[2:0] : 3'd0;
        reg [9*BYTES-1:0] latch = 0, register = 0;
        always @(posedge clock[port]) begin
            if (reset[port]) latch <= 0;
            else if (on[port] && !(write[port] && NORMAL))
                latch <= write[port] && THROUGH ? given[9*BYTES-1:0] : word >> shift;
            if (reset[port]) register <= 0;
            else if (follow[port]) register <= latch;
        end
        assign outputs[36*port +: 36] = REGISTER ? register : latch;
    end endgenerate
    assign {
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4,
        DOA3, DOA2, DOA1, DOA0} = DATA_WIDTH_B == 36 ? outputs[53:36] : outputs[17:0];
    assign {
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4,
        DOB3, DOB2, DOB1, DOB0} = DATA_WIDTH_B == 36 ? outputs[71:54] : outputs[53:36];
endmodule

// Operands of 18 bits, each signed or not, with registers at both and behind the product; each of
// these takes one of four clocks and enables. No resets, no register inside the product, no third
// operand, no operands from another multiplier.
module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE", REG_INPUTA_CE = "CE0", REG_INPUTA_RST = "RST0",
    parameter REG_INPUTB_CLK = "NONE", REG_INPUTB_CE = "CE0", REG_INPUTB_RST = "RST0",
    parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0"
) (
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0, RST3, RST2, RST1, RST0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
    P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    wire [17:0] a = {
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b = {
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    // Of the four, the one whose name ends with a number.
    function [1:0] number(input [31:0] name);
        number = name[1:0];
    endfunction
    wire [3:0] clocks = {CLK3, CLK2, CLK1, CLK0}, enables = {CE3, CE2, CE1, CE0};
    wire clock_a = clocks[number(REG_INPUTA_CLK)], clock_b = clocks[number(REG_INPUTB_CLK)];
    wire clock_p = clocks[number(REG_OUTPUT_CLK)];
    reg [17:0] register_a = 0, register_b = 0;
    reg [35:0] register_p = 0;
    wire [17:0] left = REG_INPUTA_CLK == "NONE" ? a : register_a;
    wire [17:0] right = REG_INPUTB_CLK == "NONE" ? b : register_b;
    wire [35:0] product = {{18{SIGNEDA & left[17]}}, left} * {{18{SIGNEDB & right[17]}}, right};
    always @(posedge clock_a) if (enables[number(REG_INPUTA_CE)]) register_a <= a;
    always @(posedge clock_b) if (enables[number(REG_INPUTB_CE)]) register_b <= b;
    always @(posedge clock_p) if (enables[number(REG_OUTPUT_CE)]) register_p <= product;
    wire strange = SOURCEA | SOURCEB | RST0 | RST1 | RST2 | RST3;
    always @(strange) if (strange) begin
        $display("FAILED: a MULT18X18D has an input without a model");
        $fatal(1);
    end
    assign {
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
        P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0}
        = REG_OUTPUT_CLK == "NONE" ? product : register_p;
endmodule
