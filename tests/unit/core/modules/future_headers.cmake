# pega_future_headers(from to) - the ABI headers as a later minor version might have them: every struct that may grow has grown.
#
# Three structs can never grow, because others hold them by value or walk arrays of them without a stride: pega_batch_option,
# pega_cost, pega_option.
function(pega_future_headers from to)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${from} ${from}/*.h)
  foreach(header IN LISTS headers)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${from}/${header})
    file(READ ${from}/${header} text)
    string(REGEX REPLACE "\n} (pega_[a-z_]+);" "\n    uint64_t later_value;\n    void (*later_function)(void);\n} \\1;" text "${text}")
    foreach(fixed pega_batch_option pega_cost pega_option)
      string(REPLACE "\n    uint64_t later_value;\n    void (*later_function)(void);\n} ${fixed};" "\n} ${fixed};" text "${text}")
    endforeach()
    string(REPLACE "PEGA_ABI_MINOR 0" "PEGA_ABI_MINOR 1" text "${text}")
    file(CONFIGURE OUTPUT ${to}/${header} CONTENT "${text}" @ONLY NEWLINE_STYLE UNIX)
  endforeach()
endfunction()
