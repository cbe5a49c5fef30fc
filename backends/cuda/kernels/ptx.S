/* SPDX-License-Identifier: Apache-2.0
 * ptx.S - the compiled kernels as two zero-terminated strings. */
    .section .rodata, "a", @progbits
    .globl pega_copy_sm80_ptx
    .hidden pega_copy_sm80_ptx
pega_copy_sm80_ptx:
    .incbin "kernels/copy_sm80.ptx"
    .byte 0
    .globl pega_copy_sm90_ptx
    .hidden pega_copy_sm90_ptx
pega_copy_sm90_ptx:
    .incbin "kernels/copy_sm90.ptx"
    .byte 0
    .section .note.GNU-stack, "", @progbits
