# Defines outrider::torch, the LibTorch that everything links. Installed beside the package's config too, so that a
# consumer finds its LibTorch by the same rules. Three ways, in this order:
#   1. OUTRIDER_CUDA=ON: find_package(Torch), which needs the CUDA toolkit when the LibTorch was built with CUDA;
#   2. a LibTorch on CMAKE_PREFIX_PATH or Torch_DIR (pytorch.org's archive, a wheel's folder): torch_cpu and c10 of it;
#   3. OUTRIDER_TORCH_FALLBACK, a folder: the wheel that cmake/install_dependencies.sh put into .deps/, or for a
#      consumer of an installed package, the LibTorch that the package was built with.
# Ways 2 and 3 need no CUDA toolkit even where the library was built with CUDA.
if(TARGET outrider::torch)
    return()
endif()
add_library(outrider::torch INTERFACE IMPORTED GLOBAL)
# The wheel carries headers of its own fmt, newer than the system's and found before them, but no library of it.
set_property(TARGET outrider::torch PROPERTY INTERFACE_COMPILE_DEFINITIONS FMT_HEADER_ONLY)

if(OUTRIDER_CUDA)
    # Without it Torch's own files stop at "Failed to detect a default CUDA architecture", which helps nobody.
    find_program(OUTRIDER_NVCC nvcc HINTS ${CUDA_TOOLKIT_ROOT_DIR} $ENV{CUDA_HOME} $ENV{CUDA_PATH} /usr/local/cuda
                 PATH_SUFFIXES bin)
    if(NOT OUTRIDER_NVCC)
        message(FATAL_ERROR "outrider: OUTRIDER_CUDA needs the CUDA toolkit of the version that the LibTorch was built "
                            "with, and found no nvcc. Install the toolkit, and pass -DCUDA_TOOLKIT_ROOT_DIR=/path/to/it "
                            "if it is in a place of its own. Without a toolkit leave OUTRIDER_CUDA off (preset release): "
                            "everything but running on a GPU works")
    endif()
    find_package(Torch REQUIRED)
    set_property(TARGET outrider::torch PROPERTY INTERFACE_LINK_LIBRARIES ${TORCH_LIBRARIES})
    set(OUTRIDER_TORCH_ROOT ${TORCH_INSTALL_PREFIX})
    return()
endif()

set(outrider_torch_hints ${CMAKE_PREFIX_PATH})
if(Torch_DIR)
    list(PREPEND outrider_torch_hints ${Torch_DIR}/../../..)
endif()
find_path(OUTRIDER_TORCH_INCLUDE ATen/ATen.h HINTS ${outrider_torch_hints} PATHS ${OUTRIDER_TORCH_FALLBACK}
          PATH_SUFFIXES include)
get_filename_component(OUTRIDER_TORCH_ROOT "${OUTRIDER_TORCH_INCLUDE}/.." ABSOLUTE)
foreach(library torch_cpu c10)
    string(TOUPPER OUTRIDER_${library} variable)
    find_library(${variable} ${library} HINTS ${OUTRIDER_TORCH_ROOT} PATH_SUFFIXES lib NO_DEFAULT_PATH)
    if(NOT OUTRIDER_TORCH_INCLUDE OR NOT ${variable})
        message(FATAL_ERROR "outrider: no LibTorch found (looked for ATen/ATen.h and lib${library}). Pass "
                            "-DCMAKE_PREFIX_PATH=/path/to/libtorch, or run cmake/install_dependencies.sh in outrider's "
                            "source folder")
    endif()
    add_library(outrider::${library} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(outrider::${library} PROPERTIES IMPORTED_LOCATION ${${variable}}
                          INTERFACE_INCLUDE_DIRECTORIES ${OUTRIDER_TORCH_INCLUDE})
endforeach()
set_property(TARGET outrider::torch PROPERTY INTERFACE_LINK_LIBRARIES outrider::torch_cpu outrider::c10)

# LibTorch keeps no binary interface between minor versions.
if(EXISTS ${OUTRIDER_TORCH_INCLUDE}/torch/headeronly/version.h)
    file(STRINGS ${OUTRIDER_TORCH_INCLUDE}/torch/headeronly/version.h outrider_torch_version
         REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
    string(REGEX MATCHALL "[0-9]+" outrider_torch_version "${outrider_torch_version}")
    list(JOIN outrider_torch_version "." OUTRIDER_TORCH_VERSION)
endif()
if(OUTRIDER_TORCH_BUILT_WITH AND OUTRIDER_TORCH_VERSION AND
   NOT OUTRIDER_TORCH_BUILT_WITH STREQUAL OUTRIDER_TORCH_VERSION)
    message(FATAL_ERROR "outrider: this package was built with LibTorch ${OUTRIDER_TORCH_BUILT_WITH}, and "
                        "${OUTRIDER_TORCH_ROOT} holds ${OUTRIDER_TORCH_VERSION}. Use the same version, or build "
                        "outrider again with this one")
endif()
