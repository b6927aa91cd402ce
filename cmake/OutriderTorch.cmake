# Defines outrider_torch. Three ways to a LibTorch, in this order:
#   1. OUTRIDER_CUDA=ON: find_package(Torch), which needs the CUDA toolkit when the LibTorch was built with CUDA;
#   2. a LibTorch on CMAKE_PREFIX_PATH or Torch_DIR (pytorch.org's archive, a wheel's folder): torch_cpu and c10 of it;
#   3. the wheel that cmake/install_dependencies.sh put into .deps/.
# Ways 2 and 3 need no CUDA toolkit even where the library was built with CUDA.
add_library(outrider_torch INTERFACE)
add_library(outrider::torch ALIAS outrider_torch)
set_target_properties(outrider_torch PROPERTIES EXPORT_NAME torch)

if(OUTRIDER_CUDA)
    find_package(Torch REQUIRED)
    target_link_libraries(outrider_torch INTERFACE ${TORCH_LIBRARIES})
    return()
endif()

set(outrider_torch_hints)
if(Torch_DIR)
    list(APPEND outrider_torch_hints ${Torch_DIR}/../../..)
endif()
list(APPEND outrider_torch_hints ${CMAKE_PREFIX_PATH})
find_path(OUTRIDER_TORCH_INCLUDE ATen/ATen.h HINTS ${outrider_torch_hints}
          PATHS ${CMAKE_CURRENT_LIST_DIR}/../.deps/python/torch PATH_SUFFIXES include)
get_filename_component(outrider_torch_root "${OUTRIDER_TORCH_INCLUDE}/.." ABSOLUTE)
find_library(OUTRIDER_TORCH_CPU torch_cpu HINTS ${outrider_torch_root} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(OUTRIDER_TORCH_C10 c10 HINTS ${outrider_torch_root} PATH_SUFFIXES lib NO_DEFAULT_PATH)
if(NOT OUTRIDER_TORCH_INCLUDE OR NOT OUTRIDER_TORCH_CPU OR NOT OUTRIDER_TORCH_C10)
    message(FATAL_ERROR "outrider: no LibTorch found. Run cmake/install_dependencies.sh, or pass "
                        "-DCMAKE_PREFIX_PATH=/path/to/libtorch")
endif()
add_library(outrider_torch_cpu UNKNOWN IMPORTED GLOBAL)
set_target_properties(outrider_torch_cpu PROPERTIES IMPORTED_LOCATION ${OUTRIDER_TORCH_CPU}
                      INTERFACE_INCLUDE_DIRECTORIES ${OUTRIDER_TORCH_INCLUDE})
add_library(outrider_torch_c10 UNKNOWN IMPORTED GLOBAL)
set_target_properties(outrider_torch_c10 PROPERTIES IMPORTED_LOCATION ${OUTRIDER_TORCH_C10})
target_link_libraries(outrider_torch INTERFACE outrider_torch_cpu outrider_torch_c10)
