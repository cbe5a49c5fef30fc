# Installation of headers and the package files for find_package(pegaflow).
include(CMakePackageConfigHelpers)
install(DIRECTORY libpegaflow/include/pegaflow DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
