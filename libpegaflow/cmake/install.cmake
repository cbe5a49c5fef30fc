# Installation of headers and the package files for find_package(pegaflow).
include(CMakePackageConfigHelpers)
install(DIRECTORY libpegaflow/include/pegaflow DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
set(PEGA_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/pegaflow)
install(EXPORT pegaflow-targets NAMESPACE pegaflow:: DESTINATION ${PEGA_PACKAGE_DIR})
configure_package_config_file(libpegaflow/cmake/pegaflow-config.cmake.in ${CMAKE_BINARY_DIR}/pegaflow-config.cmake
  INSTALL_DESTINATION ${PEGA_PACKAGE_DIR} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/pegaflow-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/pegaflow-config.cmake ${CMAKE_BINARY_DIR}/pegaflow-config-version.cmake
  libpegaflow/cmake/module.map DESTINATION ${PEGA_PACKAGE_DIR})

# Target `installable`: all that an installation takes, without the tests.
get_property(PEGA_INSTALLED GLOBAL PROPERTY PEGA_LOADABLES)
get_property(PEGA_INSTALLED_TOOLS GLOBAL PROPERTY PEGA_TOOLS)
list(APPEND PEGA_INSTALLED ${PEGA_INSTALLED_TOOLS} pegaflow)
if(TARGET pegaflow_client)
  list(APPEND PEGA_INSTALLED pegaflow_client)
endif()
add_custom_target(installable DEPENDS ${PEGA_INSTALLED})
