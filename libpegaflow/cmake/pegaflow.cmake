# The five build verbs: pega_module, pega_backend, pega_plugin, pega_tool, pega_test.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET default)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_SANITIZE "-O1 -g1 -fno-omit-frame-pointer")
set(CMAKE_C_FLAGS_SANITIZE "-O1 -g1 -fno-omit-frame-pointer")
set(CMAKE_CXX_FLAGS_DEBUG "-Og -g1")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

# Clones share what was compiled: ccache sees paths below the source directory as relative ones.
find_program(PEGA_CCACHE ccache)
if(PEGA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(PEGA_CCACHE_RUN ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
    ${PEGA_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${PEGA_CCACHE_RUN})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${PEGA_CCACHE_RUN})
endif()

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(PEGA_MODULE_DIR ${CMAKE_BINARY_DIR}/lib/pegaflow)
set(CMAKE_BUILD_RPATH_USE_ORIGIN ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../lib:$ORIGIN")

include(GNUInstallDirs)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)

# What every target of ours is compiled with.
add_library(pega_flags INTERFACE)
target_compile_options(pega_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers
  $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
target_include_directories(pega_flags INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/libpegaflow/include> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/libpegaflow>)
target_compile_definitions(pega_flags INTERFACE PEGAFLOW_VERSION="${PROJECT_VERSION}")
target_link_libraries(pega_flags INTERFACE Threads::Threads fmt::fmt ${CMAKE_DL_LIBS})
if(PEGAFLOW_SANITIZE)
  target_compile_options(pega_flags INTERFACE -fsanitize=${PEGAFLOW_SANITIZE} -fno-sanitize-recover=undefined)
  target_link_options(pega_flags INTERFACE -fsanitize=${PEGAFLOW_SANITIZE})
  # Boost has fences, which ThreadSanitizer does not see: GCC says so wherever one was inlined, thousands of lines in all.
  if(PEGAFLOW_SANITIZE STREQUAL "thread")
    target_compile_options(pega_flags INTERFACE -Wno-tsan)
  endif()
endif()

# Sources of a target compiled together, several to a translation unit, where whole builds matter more than small changes: headers and
# templates are then compiled once for all of them. Files whose local names meet stay by themselves: pega_apart(files).
option(PEGAFLOW_UNITY "Compile several sources together: whole builds take less time, changes more" OFF)
function(pega_together target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${PEGAFLOW_UNITY} UNITY_BUILD_BATCH_SIZE 10)
endfunction()
function(pega_apart)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# pega_module(name SOURCES a.cpp ... [DEPS targets] [PCH]) - one layer of the library as objects, target pega_<name>.
function(pega_module name)
  cmake_parse_arguments(M "PCH" "" "SOURCES;DEPS" ${ARGN})
  add_library(pega_${name} OBJECT ${M_SOURCES})
  target_link_libraries(pega_${name} PUBLIC pega_flags ${M_DEPS})
  # Nobody replaces single functions of the library: calls within it are direct, or inlined.
  target_compile_options(pega_${name} PRIVATE -fno-semantic-interposition)
  pega_together(pega_${name})
  if(M_PCH)
    target_precompile_headers(pega_${name} PRIVATE ${PROJECT_SOURCE_DIR}/libpegaflow/base/pch.hpp)
  elseif(TARGET pega_base AND NOT name STREQUAL base)
    target_precompile_headers(pega_${name} REUSE_FROM pega_base)
  endif()
endfunction()

# A loadable module: one exported symbol, nothing undefined, in the module directory.
function(pega_loadable target)
  cmake_parse_arguments(M "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${target} MODULE ${M_SOURCES})
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -fvisibility=hidden $<$<COMPILE_LANGUAGE:CXX>:-fvisibility-inlines-hidden>)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/libpegaflow/include ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE Threads::Threads ${CMAKE_DL_LIBS} ${M_DEPS})
  target_link_options(${target} PRIVATE
    -Wl,--version-script=${PROJECT_SOURCE_DIR}/libpegaflow/cmake/module.map)
  if(PEGAFLOW_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${PEGAFLOW_SANITIZE} -fno-sanitize-recover=undefined)
    target_link_options(${target} PRIVATE -fsanitize=${PEGAFLOW_SANITIZE})
  else()
    target_link_options(${target} PRIVATE -Wl,-z,defs)
  endif()
  set_target_properties(${target} PROPERTIES PREFIX "" OUTPUT_NAME ${target} LIBRARY_OUTPUT_DIRECTORY ${PEGA_MODULE_DIR})
  install(TARGETS ${target} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/pegaflow)
  set_property(GLOBAL APPEND PROPERTY PEGA_LOADABLES ${target})
endfunction()

# pega_backend(name SOURCES ... [COMMON ...] [DEPS ...]) - backends/<name>, file pegaflow-backend-<name>.so. COMMON names sources of
# backends/common, which the back end compiles in for itself alone.
function(pega_backend name)
  cmake_parse_arguments(B "" "" "SOURCES;COMMON;DEPS" ${ARGN})
  list(TRANSFORM B_COMMON PREPEND ${PROJECT_SOURCE_DIR}/backends/common/)
  pega_loadable(pegaflow-backend-${name} SOURCES ${B_SOURCES} ${B_COMMON} DEPS ${B_DEPS})
  target_include_directories(pegaflow-backend-${name} PRIVATE ${PROJECT_SOURCE_DIR}/backends)
endfunction()

# pega_plugin(name SOURCES ... [DEPS ...]) - file pegaflow-plugin-<name>.so
function(pega_plugin name)
  pega_loadable(pegaflow-plugin-${name} ${ARGN})
endfunction()

# pega_tool(name SOURCES ... [DEPS ...]) - an installed executable.
function(pega_tool name)
  cmake_parse_arguments(T "" "" "SOURCES;DEPS" ${ARGN})
  set(target ${name})
  if(TARGET ${name})  # the tool is called as the library
    set(target ${name}-tool)
  endif()
  add_executable(${target} ${T_SOURCES})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name})
  target_link_libraries(${target} PRIVATE pega_flags ${T_DEPS})
  install(TARGETS ${target} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  set_property(GLOBAL APPEND PROPERTY PEGA_TOOLS ${target})
endfunction()

# How many times its usual limit a test may take: machines differ by that much, and a sanitizer comes on top.
set(PEGA_PATIENCE 2)
if(PEGAFLOW_SANITIZE)
  set(PEGA_PATIENCE 6)
endif()

# pega_test(name SOURCES ... [DEPS ...] [LABELS ...] [TIMEOUT seconds] [ENVIRONMENT ...]) - a GoogleTest executable, one ctest entry a test,
# but for those that are called DISABLED_: other processes of the tests run them.
function(pega_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;DEPS;LABELS;ENVIRONMENT" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  math(EXPR T_TIMEOUT "${T_TIMEOUT} * ${PEGA_PATIENCE}")
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE pega_flags ${T_DEPS} GTest::gmock GTest::gtest_main)
  target_precompile_headers(${name} REUSE_FROM pega_test_headers)
  pega_together(${name})
  gtest_discover_tests(${name} TEST_FILTER "-*.DISABLED_*" DISCOVERY_TIMEOUT 120 DISCOVERY_MODE PRE_TEST
    PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT}
    ENVIRONMENT "PEGAFLOW_PLUGIN_PATH=${PEGA_MODULE_DIR};${T_ENVIRONMENT}")
endfunction()
